/* contrib/pgx_tde/module/pgx_tde--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pgx_tde" to load this file. \quit

-- The functions are in pg_catalog, where Fujitsu Enterprise Postgres has them,
-- and where nobody can put another function of the same name in front.

CREATE FUNCTION pg_catalog.pgx_set_master_key(passphrase text)
RETURNS void
AS 'MODULE_PATHNAME', 'pgx_set_master_key'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION pg_catalog.pgx_set_master_key()
RETURNS void
AS 'MODULE_PATHNAME', 'pgx_set_master_key'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION pg_catalog.pgx_open_keystore(passphrase text)
RETURNS void
AS 'MODULE_PATHNAME', 'pgx_open_keystore'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION pg_catalog.pgx_set_keystore_passphrase(old_passphrase text, new_passphrase text)
RETURNS void
AS 'MODULE_PATHNAME', 'pgx_set_keystore_passphrase'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION pg_catalog.pgx_set_master_key(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_catalog.pgx_set_master_key() FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_catalog.pgx_open_keystore(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_catalog.pgx_set_keystore_passphrase(text, text) FROM PUBLIC;

-- Ciphertext out, and changed ciphertext in: what pgx_keystore -d works with.  May be granted.

CREATE FUNCTION pg_catalog.pgx_get_keystore()
RETURNS bytea
AS 'MODULE_PATHNAME', 'pgx_get_keystore'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION pg_catalog.pgx_store_keystore(keystore bytea)
RETURNS void
AS 'MODULE_PATHNAME', 'pgx_store_keystore'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION pg_catalog.pgx_store_keystore(keystore bytea, envelope bytea)
RETURNS void
AS 'MODULE_PATHNAME', 'pgx_store_keystore'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION pg_catalog.pgx_get_keystore() FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_catalog.pgx_store_keystore(bytea) FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_catalog.pgx_store_keystore(bytea, bytea) FROM PUBLIC;

CREATE FUNCTION pg_catalog.pgx_tablespace_algorithm(tablespace oid)
RETURNS text
AS 'MODULE_PATHNAME', 'pgx_tablespace_algorithm'
LANGUAGE C STRICT STABLE PARALLEL SAFE;

CREATE FUNCTION pg_catalog.pgx_keystore_state(
	OUT keystore_location text,
	OUT status text,
	OUT opened_by text,
	OUT uuid uuid,
	OUT generation bigint,
	OUT active_master_key integer,
	OUT auto_open text,
	OUT wal_encryption boolean)
RETURNS record
AS 'MODULE_PATHNAME', 'pgx_keystore_state'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

REVOKE ALL ON FUNCTION pg_catalog.pgx_keystore_state() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pgx_keystore_state() TO pg_monitor;

-- Mirrored (multiplexed) WAL

CREATE FUNCTION pg_catalog.pgx_pause_wal_multiplexing()
RETURNS void
AS 'MODULE_PATHNAME', 'pgx_pause_wal_multiplexing'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION pg_catalog.pgx_resume_wal_multiplexing()
RETURNS void
AS 'MODULE_PATHNAME', 'pgx_resume_wal_multiplexing'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION pg_catalog.pgx_is_wal_multiplexing_paused()
RETURNS boolean
AS 'MODULE_PATHNAME', 'pgx_is_wal_multiplexing_paused'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

CREATE FUNCTION pg_catalog.pgx_wal_mirror_state(
	OUT directory text,
	OUT state text,
	OUT since timestamp with time zone,
	OUT segment text,
	OUT written_bytes bigint,
	OUT syncs bigint,
	OUT failures bigint,
	OUT last_failure text)
RETURNS record
AS 'MODULE_PATHNAME', 'pgx_wal_mirror_state'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

REVOKE ALL ON FUNCTION pg_catalog.pgx_wal_mirror_state() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pgx_wal_mirror_state() TO pg_monitor;

-- Statistics, named as the server names its own: everybody may read them, and resetting may be granted.

CREATE FUNCTION pg_catalog.pg_stat_get_pgx_tde(
	OUT kind text,
	OUT pages_encrypted bigint,
	OUT bytes_encrypted bigint,
	OUT encrypt_time double precision,
	OUT pages_decrypted bigint,
	OUT bytes_decrypted bigint,
	OUT decrypt_time double precision,
	OUT failures bigint,
	OUT stats_reset timestamp with time zone)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pg_stat_get_pgx_tde'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE ROWS 5;

CREATE FUNCTION pg_catalog.pg_stat_reset_pgx_tde()
RETURNS void
AS 'MODULE_PATHNAME', 'pg_stat_reset_pgx_tde'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

REVOKE ALL ON FUNCTION pg_catalog.pg_stat_reset_pgx_tde() FROM PUBLIC;

CREATE VIEW pg_stat_pgx_tde AS
	SELECT * FROM pg_catalog.pg_stat_get_pgx_tde();

GRANT SELECT ON pg_stat_pgx_tde TO PUBLIC;

CREATE VIEW pgx_tablespaces AS
	SELECT oid AS spctablespace, pg_catalog.pgx_tablespace_algorithm(oid) AS spcencalgo
	FROM pg_catalog.pg_tablespace;

GRANT SELECT ON pgx_tablespaces TO PUBLIC;

CREATE VIEW pgx_keystore_status AS
	SELECT * FROM pg_catalog.pgx_keystore_state();

REVOKE ALL ON pgx_keystore_status FROM PUBLIC;
GRANT SELECT ON pgx_keystore_status TO pg_monitor;

CREATE VIEW pgx_wal_mirror_status AS
	SELECT * FROM pg_catalog.pgx_wal_mirror_state();

REVOKE ALL ON pgx_wal_mirror_status FROM PUBLIC;
GRANT SELECT ON pgx_wal_mirror_status TO pg_monitor;

-- What of this database, and of what all databases share, is plaintext on disk: its tablespace has no key.  A
-- mapped relation or one without a tablespace of its own is in that of the database.
CREATE VIEW pgx_plain_relations AS
	SELECT c.oid::pg_catalog.regclass AS relation, c.relkind, c.relpersistence, s.spcname AS tablespace
	FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
		JOIN pg_catalog.pg_tablespace s
			ON s.oid = CASE c.reltablespace WHEN 0 THEN d.dattablespace ELSE c.reltablespace END
	WHERE c.relkind IN ('r', 'i', 't', 'm', 'S')
		AND pg_catalog.pgx_tablespace_algorithm(s.oid) = 'none';

GRANT SELECT ON pgx_plain_relations TO PUBLIC;
