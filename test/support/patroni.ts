/**
 * A real cluster: two PostgreSQL servers under Patroni, with etcd, and with HAProxy in front, all
 * on this machine and from the distribution's packages. The first node's connections to etcd, and
 * its standby's connections to the first node, go through gates, which a test closes.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { openGate } from "./gate.ts";
import { noticeSkipped } from "./notice.ts";
import { findProgram, freePort } from "./programs.ts";

const run = promisify(execFile);
/** The time limit of a cluster's election, in ms; Patroni's minimum TTL is 20 s. */
const patienceMs = 90_000;

const programs = {
  patroni: findProgram("patroni", undefined),
  patronictl: findProgram("patronictl", undefined),
  etcd: findProgram("etcd", undefined),
  haproxy: findProgram("haproxy", undefined),
};
const versions = "/usr/lib/postgresql";
const binDirectory = existsSync(versions)
  ? readdirSync(versions)
      .map(Number)
      .filter((version) => version >= 15)
      .sort((a, b) => a - b)
      .map((version) => join(versions, String(version), "bin"))
      .at(-1)
  : undefined;

/** The reason why this machine has no cluster; printed once, visible to people. */
export function missingPatroni(): string | undefined {
  const missing = Object.entries(programs)
    .filter(([, path]) => path === undefined)
    .map(([name]) => name);
  if (binDirectory === undefined) missing.push("postgresql");
  if (process.getuid?.() !== 0 || spawnSync("id", ["postgres"]).status !== 0)
    missing.push("root and its postgres user");
  if (missing.length === 0) return undefined;
  return noticeSkipped(
    "a cluster of Patroni",
    `no ${missing.join(", ")} here (apt-get install patroni etcd-server haproxy postgresql)`,
  );
}

type Node = { name: string; port: number; restPort: number; data: string; file: string };

export type Cluster = {
  /** The database "pinion" at the current primary. */
  url: string;
  /** The leading node. */
  primary(): Promise<string>;
  switchover(): Promise<void>;
  /** `kill -9` of the primary's postmaster. Resolves to the node. */
  killPrimary(): Promise<string>;
  /**
   * Cuts the first node off from etcd and from its standby, both ways; clients still reach the
   * node.
   */
  partition: { close(): void; open(): void };
  /** Cuts replication alone. */
  replication: { close(): void; open(): void };
  /** Resolves once a node other than `former` leads and takes writes. */
  untilLedByAnother(former: string): Promise<void>;
  /**
   * Resolves once one node leads and the other node streams from the leader, synchronously if the
   * cluster is synchronous.
   */
  untilWhole(): Promise<void>;
  stop(): Promise<void>;
};

/** The programs of a cluster, in its directory. */
class Programs {
  readonly directory = mkdtempSync(join(tmpdir(), "pinion-cluster-"));
  readonly #children: ChildProcess[] = [];
  readonly #logs: string[] = [];

  start(program: string, args: string[], log: string): void {
    const command = `exec "$0" "$@" >>${join(this.directory, log)} 2>&1`;
    const child = spawn("sh", ["-c", command, program, ...args], { cwd: this.directory, stdio: "ignore" });
    this.#children.push(child);
    this.#logs.push(log);
  }

  /** The ends of all logs. */
  logs(): string {
    const texts = this.#logs.map((log) => {
      const path = join(this.directory, log);
      return existsSync(path) ? `${log}:\n${readFileSync(path, "utf8").slice(-2_000)}` : "";
    });
    return texts.join("\n");
  }

  /** Ends the programs, then the servers of the nodes. */
  async stop(nodes: readonly Node[]): Promise<void> {
    for (const child of this.#children.reverse()) child.kill("SIGTERM");
    const control = join(binDirectory!, "pg_ctl");
    const stopNode = ({ data }: Node) =>
      run("runuser", ["-u", "postgres", "--", control, "-D", data, "-m", "immediate", "stop"], { cwd: "/" });
    await Promise.all(nodes.map((node) => stopNode(node).catch(() => {})));
    await Promise.all(this.#children.map((child) => ended(child)));
  }
}

async function startEtcd(started: Programs): Promise<number> {
  const [port, peerPort] = [await freePort(), await freePort()];
  const [url, peerUrl] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${peerPort}`];
  const args = [
    ...["--data-dir", join(started.directory, "etcd"), "--name", "e"],
    ...["--listen-client-urls", url, "--advertise-client-urls", url],
    ...["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl],
    ...["--initial-cluster", `e=${peerUrl}`],
  ];
  started.start(programs.etcd!, args, "etcd.log");
  return port;
}

async function nodeOf(directory: string, name: string): Promise<Node> {
  const [data, file] = [join(directory, name), join(directory, `${name}.yml`)];
  return { name, port: await freePort(), restPort: await freePort(), data, file };
}

/** Starts a cluster; about 20 s. */
export async function startCluster(options: { isSynchronous: boolean }): Promise<Cluster> {
  const started = new Programs();
  const { directory } = started;
  const etcdPort = await startEtcd(started);
  const frontPort = await freePort();
  const [a, b] = [await nodeOf(directory, "a"), await nodeOf(directory, "b")];
  const nodes = [a, b];
  const etcdGate = await openGate(etcdPort);
  const replicationGate = await openGate(a.port);
  const gated = { etcdPort: etcdGate.port, connectPort: replicationGate.port, directory, ...options };
  writeFileSync(a.file, patroniConfig(a, gated));
  writeFileSync(b.file, patroniConfig(b, { etcdPort, connectPort: b.port, directory, ...options }));
  await run("chown", ["-R", "postgres", directory]);
  const startNode = ({ name, file }: Node) =>
    started.start("runuser", ["-u", "postgres", "--", programs.patroni!, file], `${name}.log`);
  const file = join(directory, "haproxy.cfg");
  writeFileSync(file, haproxyConfig(frontPort, nodes));

  const cluster: Cluster = {
    url: `postgres://postgres@127.0.0.1:${frontPort}/pinion`,
    ...rolesOf(nodes, options),
    partition: {
      close() {
        etcdGate.close();
        replicationGate.close();
      },
      open() {
        etcdGate.open();
        replicationGate.open();
      },
    },
    replication: replicationGate,
    async stop() {
      etcdGate.open();
      await started.stop(nodes);
      etcdGate.end();
      replicationGate.end();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  try {
    startNode(a);
    await until("the first node leads", () => answers(a, "primary"));
    await run("createdb", ["-h", "127.0.0.1", "-p", String(a.port), "-U", "postgres", "pinion"]);
    startNode(b);
    started.start(programs.haproxy!, ["-db", "-f", file], "haproxy.log");
    await cluster.untilWhole();
    return cluster;
  } catch (error) {
    const logs = started.logs();
    await cluster.stop();
    throw new Error(`the cluster does not start: ${String(error)}\n${logs}`);
  }
}

type Roles = Pick<Cluster, "primary" | "switchover" | "killPrimary" | "untilLedByAnother" | "untilWhole">;

/** Which of the two nodes leads, and how that changes. */
function rolesOf(nodes: readonly Node[], { isSynchronous }: { isSynchronous: boolean }): Roles {
  const otherOf = (name: string) => nodes.find((node) => node.name !== name)!;
  async function leader(): Promise<Node> {
    for (const node of nodes) if (await answers(node, "primary")) return node;
    throw new Error("no node leads");
  }
  return {
    primary: async () => (await leader()).name,
    async switchover() {
      const { name } = await leader();
      const { name: candidate } = otherOf(name);
      // The second node's file: its way to etcd has no gate.
      const [, { file }] = nodes as readonly [Node, Node];
      const args = ["-c", file, "switchover", "--force", "--candidate", candidate];
      await run(programs.patronictl!, [...args, "--master", name, "pinion"], { cwd: dirname(file) });
    },
    async killPrimary() {
      const { name, data } = await leader();
      const [pid] = readFileSync(join(data, "postmaster.pid"), "utf8").split("\n");
      process.kill(Number(pid), "SIGKILL");
      return name;
    },
    untilLedByAnother: (former) => until("another node leads", () => answers(otherOf(former), "primary")),
    untilWhole: () =>
      until("the cluster is whole", async () => {
        const leading = await leader().catch(() => undefined);
        const role = isSynchronous ? "synchronous" : "replica?lag=1MB";
        return leading !== undefined && answers(otherOf(leading.name), role);
      }),
  };
}

function patroniConfig(
  node: Node,
  options: { etcdPort: number; connectPort: number; directory: string; isSynchronous: boolean },
): string {
  const config = {
    scope: "pinion",
    name: node.name,
    restapi: { listen: `127.0.0.1:${node.restPort}`, connect_address: `127.0.0.1:${node.restPort}` },
    // Without this option a node learns etcd's own address, past the gate.
    etcd3: { hosts: [`127.0.0.1:${options.etcdPort}`], use_proxies: true },
    bootstrap: {
      dcs: {
        ttl: 20,
        loop_wait: 2,
        retry_timeout: 5,
        maximum_lag_on_failover: 1_048_576,
        // A crashed primary is not restarted in place: the standby takes over at once.
        primary_start_timeout: 0,
        synchronous_mode: options.isSynchronous,
        postgresql: {
          use_pg_rewind: true,
          use_slots: true,
          parameters: { max_connections: 100, wal_log_hints: "on", wal_keep_size: "256MB" },
        },
      },
      initdb: [{ encoding: "UTF8" }, "data-checksums", "no-sync"],
      pg_hba: ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
    },
    postgresql: {
      listen: `127.0.0.1:${node.port}`,
      connect_address: `127.0.0.1:${options.connectPort}`,
      data_dir: node.data,
      bin_dir: binDirectory,
      basebackup: [{ checkpoint: "fast" }, "no-sync"],
      pgpass: join(options.directory, `${node.name}.pgpass`),
      parameters: { unix_socket_directories: options.directory },
      authentication: { superuser: { username: "postgres" }, replication: { username: "postgres" } },
    },
  };
  // JSON is YAML.
  return JSON.stringify(config, undefined, 2);
}

/** The configuration of docs/operations.md, with shorter intervals. */
function haproxyConfig(port: number, nodes: readonly Node[]): string {
  const servers = nodes.map(
    ({ name, port, restPort }) => `  server ${name} 127.0.0.1:${port} check port ${restPort}`,
  );
  return `global
  maxconn 500
defaults
  mode tcp
  timeout connect 2s
  timeout client 1h
  timeout server 1h
listen primary
  bind 127.0.0.1:${port}
  option httpchk OPTIONS /primary
  http-check expect status 200
  timeout check 2s
  default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
${servers.join("\n")}
`;
}

/** Whether a node reports the given role. */
async function answers(node: Node, role: string): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${node.restPort}/${role}`, {
      signal: AbortSignal.timeout(2_000),
    });
    await answer.arrayBuffer();
    return answer.status === 200;
  } catch {
    return false;
  }
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`not within ${patienceMs / 1_000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    const kill = setTimeout(() => child.kill("SIGKILL"), 10_000);
    child.once("exit", () => {
      clearTimeout(kill);
      resolve();
    });
  });
}
