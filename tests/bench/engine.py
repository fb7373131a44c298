#!/usr/bin/env python3
"""engine.py --out DIR [--rounds N] [--seconds N] [--scale N] NAME=DIRECTORY...

Run the same workloads on servers that differ only in how their files are
encrypted, in alternation, and write a table (engine.md), the numbers
(engine.csv) and what gnuplot needs (engine.dat).

Each DIRECTORY holds "data", a cluster.  The first is what the others are compared
with.  All servers run the whole time, idle but for the one whose turn it is; the
order changes from round to round, and a first round is not counted.  A figure is the
median of the rounds' ratios.

Beside the time a workload takes there is the time that the server's processes spend on the
processors, from the kernel's accounting: another user of the machine disturbs it
less, and a disk that is slow today does not hide it.
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
jit = off
"""

STARTS = 5      # of a server, for one figure of the workload "start"
TICK = os.sysconf("SC_CLK_TCK")


class Run:
    """One measurement: amount of work, seconds on the clock, seconds of the server's processes."""

    def __init__(self, work, clock, cpu):
        self.work, self.clock, self.cpu = work, clock, cpu

    def rate(self):
        return self.work / self.clock

    def efficiency(self):
        """Work per second of processor; None where it was too short for the kernel's clock."""
        return self.work / self.cpu if self.cpu and self.cpu >= 10 / TICK else None


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
        env = dict(self.env, **more.pop("environment", {}))
        done = subprocess.run(argv, env=env, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, **more)
        if done.returncode != 0:
            sys.exit(f"engine.py: {self.name}: {' '.join(argv)} failed:\n{done.stdout}")
        return done.stdout

    def start(self, wait="-w"):
        # Without a pipe to the server: it would keep it open.
        subprocess.run(["pg_ctl", "-s", wait, "-D", self.data, "-l", self.log, "start"], env=self.env, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self, mode="fast"):
        self.run("pg_ctl", "-s", "-w", "-D", self.data, "-m", mode, "stop")

    def postmaster(self):
        """What postmaster.pid says: process id and state."""
        try:
            with open(os.path.join(self.data, "postmaster.pid"), encoding="utf-8") as lines:
                fields = lines.read().split("\n")
        except FileNotFoundError:
            return None, ""
        return fields[0], fields[7].strip() if len(fields) > 7 else ""

    def cpu(self):
        """Seconds of processor of the postmaster, its children, and those that have ended."""
        while True:
            ticks = self.cpu_once()
            # A child that ended meanwhile may have been counted twice, or not at all.
            if ticks == self.cpu_once():
                return ticks / TICK

    def cpu_once(self):
        parent, _state = self.postmaster()
        ticks = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # After the name: state, parent, ..., and as the 12th to 15th user, system, and both of ended children.
            if pid == parent:
                ticks += sum(map(int, fields[11:15]))
            elif fields[1] == parent:
                ticks += sum(map(int, fields[11:13]))
        return ticks

    def measured(self, work, function):
        """Call function, and account for it."""
        cpu, clock = self.cpu(), time.monotonic()
        result = function()
        clock = time.monotonic() - clock
        return Run(result if work is None else work, clock, self.cpu() - cpu)

    def sql(self, *texts, db="small"):
        """Run statements, each in a transaction of its own."""
        commands = [word for text in texts for word in ("-c", text)]
        return self.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", db, *commands).strip()

    def timed(self, *texts, db="large"):
        return self.measured(len(texts), lambda: self.sql(*texts, db=db))

    def pgbench(self, *options, db="small", environment=None):
        """Processor time over the whole run; transactions and seconds without connecting, as pgbench has them."""
        output = []

        def bench():
            output.append(self.run("pgbench", "-n", "-M", "prepared", *options, db, environment=environment or {}))
            return int(re.search(r"actually processed: (\d+)", output[0]).group(1))

        run = self.measured(None, bench)
        run.clock = run.work / float(re.search(r"^tps = ([0-9.]+)", output[0], re.M).group(1))
        return run


def load(server, scale):
    for db, size in (("small", 5), ("large", scale)):
        server.sql(f"CREATE DATABASE {db}", db="postgres")
        server.run("pgbench", "-i", "-q", "-s", str(size), db)
    # Rows as wide as an ordinary table's, for the statements that write many of them; and a table that is
    # scanned and never written, so that no hint bit and no dead row is in the figures.
    server.sql(f"CREATE TABLE wide AS SELECT n, md5(n::text) AS a, repeat(md5((n * 7)::text), 6) AS b "
               f"FROM generate_series(1, {scale * 8000}) n",
               "CREATE UNIQUE INDEX wide_n ON wide (n)",
               "CREATE TABLE copied (LIKE wide)",
               "CREATE TABLE wal (n int, filler text)",
               "CREATE TABLE scanned AS SELECT aid, bid, abalance, filler FROM pgbench_accounts "
               "WHERE aid % 2 = 0",
               "VACUUM (FREEZE, ANALYZE)", db="large")
    server.sql("VACUUM (FREEZE, ANALYZE)", "CHECKPOINT")


def tidy(server, db):
    """The same state for each run of pgbench: few dead rows in the small tables, an empty history."""
    server.sql("TRUNCATE pgbench_history", "VACUUM pgbench_branches", "VACUUM pgbench_tellers", db=db)


def settle(server):
    """Nothing left to write, neither this server's nor what another's turn left to the kernel."""
    server.sql("CHECKPOINT")
    os.sync()


# ---- workloads: each returns a Run ----------------------------------------------------------

def read_write(server, opt, db="small"):
    tidy(server, db)
    settle(server)
    return server.pgbench("-c", "4", "-j", "2", "-T", str(opt.seconds), db=db)


def read_write_large(server, opt):
    return read_write(server, opt, "large")


def select_only(server, opt, db="small"):
    settle(server)
    return server.pgbench("-S", "-c", "2", "-j", "2", "-T", str(opt.seconds), db=db)


def select_large(server, opt):
    return select_only(server, opt, "large")


def seq_scan(server, _opt):
    settle(server)
    return server.timed(*["SELECT sum(abalance) FROM scanned"] * 6)


def copy_in(server, opt):
    server.sql("TRUNCATE copied", db="large")
    settle(server)
    return server.timed(*[f"COPY copied FROM '{opt.copy_file}'"] * 2)


def table_as(server, _opt):
    settle(server)
    run = server.timed("CREATE TABLE made1 AS SELECT * FROM wide", "CREATE TABLE made2 AS SELECT * FROM wide")
    server.sql("DROP TABLE made1, made2", db="large")
    return run


def index_build(server, _opt):
    settle(server)
    run = server.timed("CREATE INDEX made1 ON wide (a)", "CREATE INDEX made2 ON wide (n, a)")
    server.sql("DROP INDEX made1, made2", db="large")
    return run


def vacuum(server, _opt):
    server.sql("UPDATE wide SET n = n WHERE n % 3 = 0", db="large")
    settle(server)
    return server.timed("VACUUM wide")


def big_sort(server, _opt):
    settle(server)
    return server.timed(*["SELECT count(*) FROM (SELECT a FROM wide ORDER BY b, a OFFSET 0) s"] * 2)


def wal_heavy(server, opt):
    """16 clients, rows of 2 kB, and each page whole after the checkpoint before it."""
    settle(server)
    run = server.pgbench("-f", opt.wal_script, "-c", "16", "-j", "2", "-T", str(opt.seconds), db="large")
    server.sql("TRUNCATE wal", db="large")
    return run


def replay(server, opt):
    """WAL per second through redo, after a crash: what the startup process of a standby does."""
    tidy(server, "large")
    settle(server)
    # The WAL to be replayed is what counts, not how it came about.
    server.pgbench("-c", "8", "-j", "2", "-t", str(opt.replay_transactions), db="large",
                   environment={"PGOPTIONS": "-c synchronous_commit=off"})
    server.sql("SELECT pg_switch_wal()")
    server.stop("immediate")
    os.sync()
    start_of_log = os.path.getsize(server.log)
    server.start()
    with open(server.log, "rb") as log:
        log.seek(start_of_log)
        text = log.read().decode("utf-8", "replace")
    first = re.search(r"redo starts at ([0-9A-F]+)/([0-9A-F]+)", text)
    last = re.search(r"redo done at ([0-9A-F]+)/([0-9A-F]+) system usage: "
                     r"CPU: user: ([0-9.]+) s, system: ([0-9.]+) s, elapsed: ([0-9.]+) s", text)
    size = sum((int(last.group(i), 16) - int(first.group(i), 16)) << shift for i, shift in ((1, 32), (2, 0)))
    return Run(size / 1048576, max(float(last.group(5)), 0.01), float(last.group(3)) + float(last.group(4)))


def start_up(server, _opt):
    """Until postmaster.pid says that the server is ready, which is what pg_ctl waits for, in steps of its own."""
    seconds = []
    for _ in range(STARTS):
        server.stop()
        os.sync()
        clock = time.monotonic()
        server.start("-W")
        while server.postmaster()[1] != "ready":
            time.sleep(0.001)
            if time.monotonic() - clock > 60:
                sys.exit(f"engine.py: {server.name} does not start, see {server.log}")
        seconds.append(time.monotonic() - clock)
    return Run(1, statistics.median(seconds), None)


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
    ("start", start_up, "ms"),
]


# ---- the report ---------------------------------------------------------------------------

def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = re.search(r"^model name\s*: (.*)", info.read(), re.M)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return (f"{os.cpu_count()} x {model.group(1) if model else os.uname().machine}, {memory} GB, "
            f"Linux {os.uname().release}")


def ratios(runs, base, what):
    """(median, least, most) of a figure's ratio to the first server's in the same round; None if it has none."""
    pairs = [(what(run), what(one)) for run, one in zip(runs, base)]
    if any(value is None for pair in pairs for value in pair):
        return None
    values = [other / one for other, one in pairs]
    return statistics.median(values), min(values), max(values)


def cell(found):
    return "-" if found is None else f"**{found[0]:.2f}** ({found[1]:.2f}, {found[2]:.2f})"


def row(title, unit, names, results):
    """One line of the table: the first server's figure, each other's ratio, and the second's of processor time."""
    base = results[(title, names[0])]
    clock = statistics.median(run.clock for run in base)
    if unit == "ms":
        cells = [f"{clock * 1000:.0f} ms"]
        for name in names[1:]:
            more = [(run.clock - one.clock) * 1000 for run, one in zip(results[(title, name)], base)]
            cells.append(f"**{statistics.median(more):+.0f} ms** ({min(more):+.0f}, {max(more):+.0f})")
        return [title, *cells, "-"]
    cells = [f"{statistics.median(run.rate() for run in base):.4g} {unit}"]
    cells += [cell(ratios(results[(title, name)], base, Run.rate)) for name in names[1:]]
    return [title, *cells, cell(ratios(results[(title, names[1])], base, Run.efficiency))]


def write_table(out, opt, names, titles, results, server_version):
    print(f"{server_version}; {machine()}; load average at the end {os.getloadavg()[2]:.1f} over 15 minutes.", file=out)
    print(f"Scale {opt.scale}, runs of pgbench of {opt.seconds} s.  Ratio to {names[0]}, more is faster: "
          f"median of {opt.rounds} rounds (least, most).", file=out)
    print("The last column is the same for work per second of the server's processor time.\n", file=out)
    print(f"| | {names[0]} | " + " | ".join(names[1:]) + f" | {names[1]}, processor |", file=out)
    print("|---|---:|" + "---:|" * len(names), file=out)
    for title, unit in titles:
        print("| " + " | ".join(row(title, unit, names, results)) + " |", file=out)


def report(opt, names, results, server_version):
    titles = [(title, unit) for title, _function, unit in WORKLOADS if (title, names[0]) in results]
    with open(os.path.join(opt.out, "engine.md"), "w", encoding="utf-8") as out:
        write_table(out, opt, names, titles, results, server_version)
    with open(os.path.join(opt.out, "engine.dat"), "w", encoding="utf-8") as out:
        print("workload\t" + "\t".join(f"{name}\tleast\tmost" for name in names[1:]), file=out)
        for title, _unit in titles:
            base = results[(title, names[0])]
            figures = (figure for name in names[1:] for figure in ratios(results[(title, name)], base, Run.rate))
            print(title + "\t" + "\t".join(f"{figure:.3f}" for figure in figures), file=out)
    with open(os.path.join(opt.out, "engine.csv"), "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["workload", "files", "round", "work", "seconds", "processor seconds"])
        for (title, name), runs in results.items():
            for number, run in enumerate(runs, 1):
                writer.writerow([title, name, number, f"{run.work:.6g}", f"{run.clock:.5f}",
                                 "" if run.cpu is None else f"{run.cpu:.2f}"])


def measure(opt, servers):
    results = {}
    seconds = opt.seconds
    # Round 0 fills caches and files that grow once; it is shorter, and does not count.
    for number in range(opt.rounds + 1):
        order = servers[number % len(servers):] + servers[:number % len(servers)]
        opt.seconds = seconds if number > 0 else max(1, seconds // 3)
        for title, function, unit in WORKLOADS:
            if opt.only and not any(part in title for part in opt.only.split(",")):
                continue
            for server in order:
                run = function(server, opt)
                if number > 0:
                    results.setdefault((title, server.name), []).append(run)
                figure = run.clock * 1000 if unit == "ms" else run.rate()
                cpu = "" if run.cpu is None else f"   {run.clock:.2f} s, processor {run.cpu:.2f} s"
                print(f"{number}  {title:26} {server.name:12} {figure:10.4g} {unit:4}{cpu}", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--scale", type=int, default=30)
    parser.add_argument("--only", help="workloads whose title contains one of these, separated by commas")
    parser.add_argument("servers", nargs="+", metavar="NAME=DIRECTORY")
    opt = parser.parse_args()
    opt.replay_transactions = 400 * opt.scale // 8
    opt.copy_file = os.path.join(opt.out, "wide.txt")
    opt.wal_script = os.path.join(opt.out, "wal.sql")
    with open(opt.wal_script, "w", encoding="ascii") as script:
        script.write("INSERT INTO wal SELECT n, repeat('w', 2000) FROM generate_series(1, 10) n;\n")

    servers = []
    for number, argument in enumerate(opt.servers):
        name, directory = argument.split("=", 1)
        server = Server(name, directory, opt.out, 54400 + number)
        # A scale of 30 is 450 MB: eight times the buffers.
        server.configure(opt.scale * 15 // 8, opt.out)
        server.start()
        servers.append(server)
    try:
        for server in servers:
            load(server, opt.scale)
            print(f"loaded {server.name}", flush=True)
        servers[0].sql(f"COPY wide TO '{opt.copy_file}'", db="large")
        version = "PostgreSQL " + servers[0].sql("SHOW server_version", db="postgres").split(" ")[0]
        results = measure(opt, servers)
    finally:
        for server in servers:
            subprocess.run(["pg_ctl", "-s", "-D", server.data, "-m", "immediate", "stop"], env=server.env, check=False)
    report(opt, [server.name for server in servers], results, version)
    return 0


if __name__ == "__main__":
    sys.exit(main())
