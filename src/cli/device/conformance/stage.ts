import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { saveIdentity } from "@pinion/client";
import type { Assignment } from "#gen/pinion/v1/device_pb.js";
import type { Environment } from "../../cli.ts";
import { DaemonProcess } from "./daemon.ts";
import { ScriptedServer } from "./server.ts";
import type { Names, ScriptedSession } from "./session.ts";
import { Skipped, Wrong } from "./verdict.ts";

export type StageOptions = {
  command: readonly string[];
  env: Environment;
  agentKind: string;
  /** Maximum wait for an expected message in ms, unless the protocol gives a time. */
  patienceMs: number;
  /** Ends the case. */
  signal: AbortSignal;
};

/**
 * Maximum time from the start of a daemon to its hello, in ms: some daemons start a virtual
 * machine.
 */
const startWithinMs = 30_000;

/** The set-up of a case: a server, a state directory, and the daemon, started by the case. */
export class Stage {
  readonly server: ScriptedServer;
  readonly options: StageOptions;
  readonly token: string;
  readonly installId: string;
  readonly #directory: string;
  #daemon: DaemonProcess | undefined;

  private constructor(options: StageOptions, server: ScriptedServer, directory: string) {
    this.options = options;
    this.server = server;
    this.#directory = directory;
    this.token = "pin_dev_conformance";
    this.installId = `conformance-${directory.slice(-6)}`;
  }

  static async set(options: StageOptions): Promise<Stage> {
    const directory = await mkdtemp(join(tmpdir(), "pinion-conformance-"));
    const server = await ScriptedServer.start(options.patienceMs);
    const stage = new Stage(options, server, directory);
    const { installId, token } = stage;
    await saveIdentity(stage.stateDir, {
      ...{ installId, token, url: server.url },
      ...{ deviceId: "01900000-0000-7000-8000-000000000001", orgId: "local" },
    });
    return stage;
  }

  get stateDir(): string {
    return join(this.#directory, "state");
  }

  get daemon(): DaemonProcess {
    return this.#daemon!;
  }

  get script() {
    return this.server.script;
  }

  start(): void {
    if (this.options.signal.aborted) throw new Skipped("interrupted");
    this.#daemon = new DaemonProcess(this.options.command, {
      ...this.options.env,
      PINION_URL: this.server.url,
      PINION_STATE_DIR: this.stateDir,
      PINION_TOKEN: this.token,
      PINION_INSTALL_ID: this.installId,
    });
    const kill = () => void this.daemon.kill();
    const { signal } = this.options;
    signal.addEventListener("abort", kill, { once: true });
    void this.daemon.ended.then(() => signal.removeEventListener("abort", kill));
  }

  /** Starts the daemon and waits for its first hello. */
  async open(): Promise<ScriptedSession> {
    this.start();
    const gone = this.daemon.ended.then((how) => {
      throw new Wrong("the daemon starts and connects", `it ended with ${how}`);
    });
    // The daemon may end after its hello.
    gone.catch(() => {});
    return Promise.race([this.server.session("the daemon connects and says hello", startWithinMs), gone]);
  }

  /** Kills the daemon's process and starts another. */
  async restart(): Promise<ScriptedSession> {
    await this.daemon.kill();
    return this.open();
  }

  /** Drops the connection; returns the next stream. */
  async reconnect(session: ScriptedSession): Promise<ScriptedSession> {
    this.server.cut();
    await session.closed;
    return this.server.session("the daemon connects again after its connection broke");
  }

  /** An assignment with a shell script. */
  work(prompt: string, timeoutMs?: number): Assignment {
    const { agentKind } = this.options;
    return this.server.assignment({ prompt, agentKind, ...(timeoutMs ? { timeoutMs } : {}) });
  }

  /** Assigns a script and waits for the accept. */
  async assign(session: ScriptedSession, prompt: string, timeoutMs?: number): Promise<Names> {
    const assignment = this.work(prompt, timeoutMs);
    session.push(assignment);
    await session.next("accept", "an assignment is accepted", {
      of: assignment,
      withinMs: this.script.acceptDeadlineMs,
    });
    return assignment;
  }

  /** A file written by a prompt. */
  file(name: string): string {
    return join(this.#directory, name);
  }

  /** Reads a file's lines, waiting for `count` lines. */
  async lines(name: string, count: number): Promise<string[]> {
    const path = this.file(name);
    const deadline = performance.now() + this.options.patienceMs;
    for (;;) {
      const lines = existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : [];
      if (lines.length >= count) return lines;
      if (performance.now() > deadline) {
        throw new Wrong(
          "an assignment's prompt is given to `sh` on its standard input (see --help)",
          `after ${this.options.patienceMs} ms the script had written ${lines.length} of ${count} lines`,
        );
      }
      await sleep(20);
    }
  }

  async clear(): Promise<void> {
    await this.#daemon?.kill();
    await this.server.close();
    // A script near its end may still write.
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
  }
}
