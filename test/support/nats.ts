/** A real NATS server, if installed on the machine. */
import { type ChildProcess, spawn } from "node:child_process";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { eventually } from "./processes.ts";
import { findProgram, freePort } from "./programs.ts";

/** The server's program; undefined if not installed. */
export function findNatsServer(): string | undefined {
  return findProgram("nats-server", process.env.PINION_NATS_SERVER);
}

export type Nats = {
  port: number;
  url: string;
  /** A connection of the test itself, to listen and to send invalid messages. */
  dial(): Promise<NatsConnection>;
  /** At once, as a crash would. */
  kill(): Promise<void>;
  /** The same server again, on the same port. */
  start(): Promise<void>;
};

/** Starts a server on a free port with these further arguments. The caller kills the server. */
export async function startNats(args: string[] = [], { isStarted = true } = {}): Promise<Nats> {
  const program = findNatsServer();
  if (!program) throw new Error("there is no nats-server here");
  const port = await freePort();
  let child: ChildProcess | undefined;
  const orphan = () => child?.kill("SIGKILL");
  process.once("exit", orphan);
  const nats: Nats = {
    port,
    url: `nats://127.0.0.1:${port}`,
    dial: () => connect({ servers: `127.0.0.1:${port}` }),
    async start() {
      const started = spawn(program, ["-a", "127.0.0.1", "-p", String(port), ...args], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      child = started;
      let said = "";
      started.stderr!.on("data", (data) => {
        said += data;
      });
      await eventually(() => said.includes("Server is ready") || undefined, `nats-server: ${said}`);
    },
    async kill() {
      const ending = child;
      child = undefined;
      process.off("exit", orphan);
      if (!ending || ending.exitCode !== null) return;
      const ended = new Promise((resolve) => ending.once("exit", resolve));
      ending.kill("SIGKILL");
      await ended;
    },
  };
  if (isStarted) await nats.start();
  return nats;
}
