/** A real PgBouncer in transaction mode, with a configuration as its users have it. */
import { type ChildProcess, spawn } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { noticeSkipped } from "./notice.ts";
import { eventually, isListening } from "./processes.ts";
import { findProgram, freePort } from "./programs.ts";

function findPgBouncer(): string | undefined {
  return findProgram("pgbouncer", process.env.PINION_PGBOUNCER);
}

/** The reason why tests with PgBouncer are skipped here; printed once, visible to people. */
export function missingPgBouncer(): string | undefined {
  if (findPgBouncer()) return undefined;
  return noticeSkipped("PgBouncer", "there is none here (apt-get install pgbouncer, or PINION_PGBOUNCER)");
}

export type PgBouncer = {
  /** The same database, through the pooler. */
  url: string;
  /** Killed, and started again on the same port. */
  restart(): Promise<void>;
  kill(): Promise<void>;
};

/**
 * Starts PgBouncer in front of a database. Few server connections, so that callers share each
 * connection.
 */
export async function startPgBouncer(databaseUrl: string, { poolSize = 4 } = {}): Promise<PgBouncer> {
  const program = findPgBouncer();
  if (!program) throw new Error("there is no pgbouncer here");
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), "pinion-pgbouncer-"));
  // As root, PgBouncer switches to another user, who reads the folder.
  await chmod(folder, 0o755);
  const file = join(folder, "pgbouncer.ini");
  await writeFile(file, settingsOf(new URL(databaseUrl), { port, poolSize }), { mode: 0o644 });
  let child: ChildProcess | undefined;
  const orphan = () => child?.kill("SIGKILL");
  process.once("exit", orphan);
  const kill = async () => {
    const ending = child;
    child = undefined;
    if (!ending || ending.exitCode !== null) return;
    const ended = new Promise((resolve) => ending.once("exit", resolve));
    ending.kill("SIGKILL");
    await ended;
  };
  const start = async () => {
    let said = "";
    child = spawn(program, [...(process.getuid?.() === 0 ? ["-u", "nobody"] : []), file], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    child.stderr!.on("data", (data) => {
      said += data;
    });
    await eventually(() => isListening(port), `pgbouncer ${said}`);
  };
  await start();
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  return {
    url: url.href,
    async restart() {
      await kill();
      await start();
    },
    async kill() {
      await kill();
      process.off("exit", orphan);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function settingsOf(target: URL, { port, poolSize }: { port: number; poolSize: number }): string {
  const password = decodeURIComponent(target.password);
  return `[databases]
* = host=${target.hostname} port=${target.port || 5432} user=${target.username}${password ? ` password='${password}'` : ""}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = ${poolSize}
max_client_conn = 500
`;
}
