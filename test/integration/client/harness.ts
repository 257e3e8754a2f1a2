import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import {
  type AttemptResult,
  connectDevice,
  type DaemonEvent,
  type DeviceConnection,
  type DeviceOptions,
  Os,
  parseConfig,
  runDaemon,
} from "../../../clients/ts/src/index.ts";
import { Peer, type PeerOptions } from "../../support/peer.ts";
import type { PeerSession } from "../../support/peer-session.ts";
import { quickTiming } from "./timing.ts";

/** The time limit of a test's wait for an event, in ms. */
const PATIENCE_MS = 15_000;

export type EventOf<T extends DaemonEvent["type"]> = Extract<DaemonEvent, { type: T }>;

/** Records all events, and waits for later ones. */
export class Events {
  readonly all: DaemonEvent[] = [];
  readonly #waiters = new Set<() => void>();

  readonly add = (event: DaemonEvent): void => {
    this.all.push(event);
    for (const waiter of [...this.#waiters]) waiter();
  };

  of<T extends DaemonEvent["type"]>(type: T): EventOf<T>[] {
    return this.all.filter((event): event is EventOf<T> => event.type === type);
  }

  /** The `count`-th matching event of this kind, now or later. */
  async next<T extends DaemonEvent["type"]>(
    type: T,
    accept: (event: EventOf<T>) => boolean = () => true,
    count = 1,
  ): Promise<EventOf<T>> {
    const find = () => this.of(type).filter(accept)[count - 1];
    const found = find();
    if (found !== undefined) return found;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiters.delete(look);
        const seen = this.all.map((event) => event.type).filter((name) => name !== "output");
        reject(new Error(`no ${type} within ${PATIENCE_MS} ms; there were: ${seen.join(", ")}`));
      }, PATIENCE_MS);
      const look = () => {
        const event = find();
        if (event === undefined) return;
        clearTimeout(timer);
        this.#waiters.delete(look);
        resolve(event);
      };
      this.#waiters.add(look);
    });
  }
}

export function makeStateDir(): string {
  const directory = mkdtempSync(join(tmpdir(), "pinion-client-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export async function startPeer(options: PeerOptions = {}): Promise<Peer> {
  const peer = await Peer.start(options);
  onTestFinished(() => peer.close());
  return peer;
}

export function startDevice(
  url: string,
  options: Partial<DeviceOptions> = {},
): { device: DeviceConnection; events: Events; stateDir: string } {
  const events = new Events();
  const stateDir = options.stateDir ?? makeStateDir();
  const device = connectDevice({
    url,
    token: "pin_dev_test",
    installId: "install-0001",
    os: Os.LINUX,
    agentKinds: ["test"],
    stateDir,
    onAssignment: async () => ({ outcome: "completed", output: "done" }),
    onEvent: events.add,
    ...options,
    timing: { ...quickTiming, ...options.timing },
  });
  onTestFinished(() => device.close({ graceMs: 500, flushMs: 100 }).catch(() => {}));
  return { device, events, stateDir };
}

export interface TestDaemon {
  events: Events;
  stateDir: string;
  stop(): Promise<void>;
  finished: Promise<void>;
}

export function startDaemon(
  url: string,
  config: string,
  options: {
    stateDir?: string;
    env?: NodeJS.ProcessEnv;
    stopGraceMs?: number;
    installId?: string;
    token?: string;
  } = {},
): TestDaemon {
  const events = new Events();
  const stateDir = options.stateDir ?? makeStateDir();
  const controller = new AbortController();
  const finished = runDaemon({
    url,
    token: options.token ?? "pin_dev_test",
    stateDir,
    config: parseConfig(config),
    signal: controller.signal,
    onEvent: events.add,
    timing: quickTiming,
    installId: options.installId ?? `install-${stateDir.slice(-6)}`,
    stopGraceMs: options.stopGraceMs ?? 1_000,
    flushMs: 500,
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  finished.catch(() => {});
  const stop = async () => {
    controller.abort();
    await finished.catch(() => {});
  };
  onTestFinished(stop);
  return { events, stateDir, stop, finished };
}

/** A handler finished by a script. */
export function manualHandler() {
  const calls: {
    workId: string;
    signal: AbortSignal;
    output: (stream: "stdout" | "stderr", data: Uint8Array | string) => void;
    finish: (result: AttemptResult) => void;
    fail: (error: Error) => void;
  }[] = [];
  const onAssignment: DeviceOptions["onAssignment"] = (assignment, { signal, output }) => {
    const { promise, resolve, reject } = Promise.withResolvers<AttemptResult>();
    calls.push({ workId: assignment.workId, signal, output, finish: resolve, fail: reject });
    signal.addEventListener("abort", () => resolve({ outcome: "cancelled" }));
    return promise;
  };
  return { calls, onAssignment };
}

/** Resolves when `isTrue` is; looks again whenever the event loop has nothing else to do. */
export async function until(isTrue: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!isTrue()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/**
 * The first session with a welcome: on a busy machine the first dial may take longer than the
 * daemon's wait for the welcome.
 */
export async function settledSession(peer: Peer): Promise<PeerSession> {
  for (;;) {
    const session = await peer.session();
    const isSettled = await Promise.race([
      session.next("heartbeat").then(
        () => true,
        () => false,
      ),
      session.closed.then(() => false),
    ]);
    if (isSettled) return session;
  }
}
