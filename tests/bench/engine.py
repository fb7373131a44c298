#!/usr/bin/env python3
"""engine.py --out DIR [--rounds N] [--seconds N] [--scale N] NAME=DIRECTORY...

Run the same workloads on servers that differ only in how their files are
encrypted, in alternation, and write a table (engine.md), the numbers
(engine.csv) and what gnuplot needs (engine.dat).

Each DIRECTORY holds "data", a cluster.  The first is what the others are compared
with.  All servers run the whole time, idle but for the one whose turn it is, and the
order changes from round to round.  A figure is the median of the rounds' ratios.
"""
import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import time

SETTINGS = """
listen_addresses = ''
shared_buffers = {buffers}MB
max_wal_size = 8GB
checkpoint_timeout = 1h
autovacuum = off
max_connections = 50
max_parallel_workers_per_gather = 0
max_parallel_maintenance_workers = 0
maintenance_work_mem = 64MB
work_mem = 4MB
bgwriter_lru_maxpages = 0
"""


class Server:
    """One cluster, its connection, and what it takes to stop and start it."""

    def __init__(self, name, directory, socket_dir, port):
        self.name, self.data, self.port = name, os.path.join(directory, "data"), port
        self.log = os.path.join(directory, "log")
        self.env = dict(os.environ, PGHOST=socket_dir, PGPORT=str(port), PGUSER="postgres")

    def configure(self, buffers, socket_dir):
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as conf:
            conf.write(SETTINGS.format(buffers=buffers))
            conf.write(f"port = {self.port}\nunix_socket_directories = '{socket_dir}'\n")

    def run(self, *argv, **more):
        return subprocess.run(argv, env=self.env, check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, **more).stdout

    def start(self):
        # Without a pipe to the server: it would keep it open.
        subprocess.run(["pg_ctl", "-s", "-w", "-D", self.data, "-l", self.log, "start"], env=self.env, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self, mode="fast"):
        self.run("pg_ctl", "-s", "-w", "-D", self.data, "-m", mode, "stop")

    def sql(self, text, db="small"):
        return self.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", db, "-c", text).strip()

    def timed(self, text, db="large"):
        """1 / seconds of a statement."""
        started = time.monotonic()
        self.sql(text, db)
        return 1 / (time.monotonic() - started)

    def pgbench(self, *options, db="small"):
        out = self.run("pgbench", "-n", "-M", "prepared", *options, db)
        return float(re.search(r"^tps = ([0-9.]+)", out, re.M).group(1))


def load(server, scale):
    for db, size in (("small", 5), ("large", scale)):
        server.sql(f"CREATE DATABASE {db}", "postgres")
        server.run("pgbench", "-i", "-q", "-s", str(size), db)
    # Rows as wide as an ordinary table's, for the statements that write many of them.
    server.sql("CREATE TABLE wide AS SELECT n, md5(n::text) AS a, repeat(md5((n * 7)::text), 6) AS b "
               "FROM generate_series(1, 150000) n", "large")
    server.sql("CREATE TABLE copied (LIKE wide); CREATE TABLE wal (n int, filler text)", "large")
    server.sql("VACUUM ANALYZE", "large")
    server.sql("VACUUM ANALYZE", "small")


# ---- workloads: each returns a rate, more is better ---------------------------------------

def read_write(server, opt):
    return server.pgbench("-c", "4", "-j", "2", "-T", str(opt.seconds))


def read_write_large(server, opt):
    return server.pgbench("-c", "4", "-j", "2", "-T", str(opt.seconds), db="large")


def select_only(server, opt):
    return server.pgbench("-S", "-c", "2", "-j", "2", "-T", str(opt.seconds))


def select_large(server, opt):
    return server.pgbench("-S", "-c", "2", "-j", "2", "-T", str(opt.seconds), db="large")


def seq_scan(server, _opt):
    return server.timed("SELECT sum(abalance) FROM pgbench_accounts")


def copy_in(server, opt):
    server.sql("TRUNCATE copied", "large")
    return server.timed(f"COPY copied FROM '{opt.copy_file}'")


def table_as(server, _opt):
    rate = server.timed("CREATE TABLE made AS SELECT * FROM wide")
    server.sql("DROP TABLE made", "large")
    return rate


def index_build(server, _opt):
    rate = server.timed("CREATE INDEX made ON wide (a)")
    server.sql("DROP INDEX made", "large")
    return rate


def vacuum(server, _opt):
    server.sql("UPDATE wide SET n = n WHERE n % 4 = 0", "large")
    server.sql("CHECKPOINT", "large")
    return server.timed("VACUUM wide")


def big_sort(server, _opt):
    return server.timed("SELECT count(*) FROM (SELECT a FROM wide ORDER BY b, a OFFSET 0) s")


def wal_heavy(server, opt):
    """16 clients, rows of 2 kB, and each page whole after the checkpoint before it."""
    rate = server.pgbench("-f", opt.wal_script, "-c", "16", "-j", "2", "-T", str(opt.seconds), db="large")
    server.sql("TRUNCATE wal", "large")
    return rate


def replay(server, opt):
    """WAL per second through redo, after a crash: what the startup process of a standby does."""
    server.sql("CHECKPOINT", "large")
    server.pgbench("-c", "8", "-j", "2", "-t", str(opt.replay_transactions), db="large")
    server.stop("immediate")
    with open(server.log, "rb") as log:
        log.seek(0, os.SEEK_END)
        start_of_log = log.tell()
    server.start()
    with open(server.log, "rb") as log:
        log.seek(start_of_log)
        text = log.read().decode("utf-8", "replace")
    first = re.search(r"redo starts at ([0-9A-F]+)/([0-9A-F]+)", text)
    last = re.search(r"redo done at ([0-9A-F]+)/([0-9A-F]+).*elapsed: ([0-9.]+) s", text)
    size = sum((int(last.group(i), 16) - int(first.group(i), 16)) << shift for i, shift in ((1, 32), (2, 0)))
    return size / 1048576 / max(float(last.group(3)), 0.01)


def start_up(server, _opt):
    server.stop()
    started = time.monotonic()
    server.start()
    return 1 / (time.monotonic() - started)


WORKLOADS = [
    ("read-write, in memory", read_write, "tps"),
    ("read-write, 8 x buffers", read_write_large, "tps"),
    ("select-only, in memory", select_only, "tps"),
    ("select-only, 8 x buffers", select_large, "tps"),
    ("sequential scan", seq_scan, "1/s"),
    ("COPY", copy_in, "1/s"),
    ("CREATE TABLE AS", table_as, "1/s"),
    ("index build", index_build, "1/s"),
    ("VACUUM", vacuum, "1/s"),
    ("sort in temporary files", big_sort, "1/s"),
    ("WAL, 16 clients", wal_heavy, "tps"),
    ("replay", replay, "MB/s"),
    ("start", start_up, "1/s"),
]


# ---- the report ---------------------------------------------------------------------------

def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = re.search(r"^model name\s*: (.*)", info.read(), re.M)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return f"{os.cpu_count()} x {model.group(1) if model else os.uname().machine}, {memory} GB, Linux {os.uname().release}"


def summary(results, names):
    """One row a workload: [name, unit, median of the first, then (median, least, most) of each ratio]."""
    for title, _function, unit in WORKLOADS:
        base = results.get((title, names[0]))
        if not base:
            continue
        row = [title, unit, statistics.median(base)]
        for name in names[1:]:
            ratios = [other / one for other, one in zip(results[(title, name)], base)]
            row.append((statistics.median(ratios), min(ratios), max(ratios)))
        yield row


def report(opt, names, results, server_version):
    rows = list(summary(results, names))
    with open(os.path.join(opt.out, "engine.md"), "w", encoding="utf-8") as out:
        print(f"{server_version}; {machine()}.", file=out)
        print(f"Ratio to {names[0]}, median of {opt.rounds} rounds (least, most).\n", file=out)
        print(f"| | {names[0]} | " + " | ".join(names[1:]) + " |", file=out)
        print("|---|---:|" + "---:|" * (len(names) - 1), file=out)
        for title, unit, base, *others in rows:
            print(f"| {title} | {base:.4g} {unit} | "
                  + " | ".join(f"**{m:.2f}** ({low:.2f}, {high:.2f})" for m, low, high in others) + " |", file=out)
    with open(os.path.join(opt.out, "engine.dat"), "w", encoding="utf-8") as out:
        print("workload\t" + "\t".join(names[1:]), file=out)
        for title, _unit, _base, *others in rows:
            print(title + "\t" + "\t".join(f"{m:.3f}" for m, _low, _high in others), file=out)
    with open(os.path.join(opt.out, "engine.csv"), "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["workload", "unit", "files", *range(1, opt.rounds + 1)])
        for (title, name), values in results.items():
            unit = next(u for t, _f, u in WORKLOADS if t == title)
            writer.writerow([title, unit, name, *(f"{value:.5g}" for value in values)])


def measure(opt, servers):
    results = {}
    for number in range(opt.rounds):
        order = servers[number % len(servers):] + servers[:number % len(servers)]
        for title, function, unit in WORKLOADS:
            if opt.only and opt.only not in title:
                continue
            for server in order:
                server.sql("CHECKPOINT")
                value = function(server, opt)
                results.setdefault((title, server.name), []).append(value)
                print(f"{number + 1}  {title:26} {server.name:12} {value:10.4g} {unit}", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--scale", type=int, default=100)
    parser.add_argument("--only", help="workloads whose title contains this")
    parser.add_argument("servers", nargs="+", metavar="NAME=DIRECTORY")
    opt = parser.parse_args()
    opt.replay_transactions = 250 * opt.scale // 8
    opt.copy_file = os.path.join(opt.out, "wide.txt")
    opt.wal_script = os.path.join(opt.out, "wal.sql")
    with open(opt.wal_script, "w", encoding="ascii") as script:
        script.write("INSERT INTO wal SELECT n, repeat('w', 2000) FROM generate_series(1, 10) n;\n")

    servers = []
    for number, argument in enumerate(opt.servers):
        name, directory = argument.split("=", 1)
        server = Server(name, directory, opt.out, 54400 + number)
        # A scale of 100 is 1.5 GB: eight times the buffers.
        server.configure(opt.scale * 15 // 8, opt.out)
        server.start()
        servers.append(server)
    try:
        for server in servers:
            load(server, opt.scale)
            print(f"loaded {server.name}", flush=True)
        servers[0].sql(f"COPY wide TO '{opt.copy_file}'", "large")
        version = "PostgreSQL " + servers[0].sql("SHOW server_version", "postgres").split(" ")[0]
        results = measure(opt, servers)
    finally:
        for server in servers:
            subprocess.run(["pg_ctl", "-s", "-D", server.data, "-m", "immediate", "stop"], env=server.env, check=False)
    report(opt, [server.name for server in servers], results, version)
    return 0


if __name__ == "__main__":
    sys.exit(main())
