/**
 * The upgrade of a running daemon, up to the moment of the trial: the welcome of the server, or a
 * person's request, names a newer version; the program is fetched and checked while the daemon
 * works; then the daemon waits for its running programs, refuses new work and stops.
 */
import { accessSync, constants } from "node:fs";
import { dirname } from "node:path";
import type { DaemonControl, DeviceConfig } from "@pinion/client";
import { UpgradeMode } from "#gen/pinion/v1/device_pb.js";
import { build } from "../../../build.ts";
import { isLoopback } from "../../../network/loopback.ts";
import { sleep } from "../../../time/abort.ts";
import type { Environment } from "../../cli.ts";
import { canBecome } from "../conceal.ts";
import { fetchProgram, findOffer, type Offer, type Source } from "./download.ts";
import { readRecord, takeRequest, type UpgradeRecord, type UpgradeRequest, writeRecord } from "./record.ts";
import { isNewer } from "./version.ts";

/**
 * Time in ms for which a daemon goes on to take work while it waits for a moment without a running
 * program. Afterwards the daemon refuses new work; the server offers the work again later.
 */
const patienceMs = 10 * 60_000;
const pollMs = 250;
/** Pause in ms before a version is tried again by itself after a failed trial. */
const restMs = 24 * 60 * 60_000;
/** A failed fetch is tried again after this time in ms, at the next welcome. */
const retryMs = 10 * 60_000;

export type UpgraderOptions = {
  url: string;
  env: Environment;
  stateDir: string;
  source: () => Source;
  /** Reason why this daemon's program cannot replace itself; empty: none. */
  unavailable: string;
  /** Tells a line for people and the log. */
  tell(message: string): void;
  /** Stops the daemon for the trial. */
  stop(): void;
};

/** A fetched program that waits for its trial. */
export type Ready = { next: string; program: string; record: Omit<UpgradeRecord, "at"> };

export class Upgrader {
  readonly #options: UpgraderOptions;
  #control: DaemonControl | undefined;
  #last: UpgradeRecord | undefined;
  #isUnderWay = false;
  #failedAt = Number.NEGATIVE_INFINITY;
  #ready: Ready | undefined;

  constructor(options: UpgraderOptions, last: UpgradeRecord | undefined) {
    this.#options = options;
    this.#last = last;
  }

  /** The fetched program; undefined: the daemon stopped for another reason. */
  get ready(): Ready | undefined {
    return this.#ready;
  }

  /** For the server and the page. */
  describe({ upgrade }: DeviceConfig) {
    const { unavailable } = this.#options;
    if (unavailable !== "") return { mode: UpgradeMode.UNAVAILABLE, problem: unavailable };
    const failed = this.#last?.state === "rolled_back" ? this.#last : undefined;
    const mode = upgrade === "automatic" ? UpgradeMode.AUTOMATIC : UpgradeMode.MANUAL;
    return { mode, failedVersion: failed?.to ?? "", problem: failed?.problem ?? "" };
  }

  begin(control: DaemonControl): void {
    this.#control = control;
  }

  /** The server gives this version. */
  offered(version: string): void {
    const mayBegin =
      this.#control?.config().upgrade === "automatic" &&
      this.#options.unavailable === "" &&
      !this.#isUnderWay &&
      isNewer(version, build.version) &&
      performance.now() - this.#failedAt > retryMs;
    if (!mayBegin) return;
    if (!isSafe(this.#options.url)) {
      this.#options.tell(`${version} is there; automatic upgrades need an https:// server`);
      return;
    }
    const { state, to, at } = this.#last ?? { state: "kept", to: "", at: "" };
    if (state === "rolled_back" && to === version && Date.now() - Date.parse(at) < restMs) return;
    void this.#upgrade({ id: "", isAnyway: false });
  }

  /** A person asks for an upgrade (SIGUSR2). */
  async requested(): Promise<void> {
    const request = await takeRequest(this.#options.stateDir);
    if (!request) return;
    if (this.#isUnderWay)
      return this.#note({ requestId: request.id, state: "failed", problem: "an upgrade is under way" });
    await this.#upgrade(request);
  }

  async #upgrade(request: UpgradeRequest): Promise<void> {
    const { unavailable, tell } = this.#options;
    this.#isUnderWay = true;
    try {
      if (unavailable !== "") throw new Error(unavailable);
      await this.#prepare(request);
    } catch (error) {
      const problem = (error as Error).message;
      this.#failedAt = performance.now();
      this.#isUnderWay = false;
      this.#note({ requestId: request.id, state: "failed", problem });
      tell(`no upgrade: ${problem}`);
    }
  }

  async #prepare(request: UpgradeRequest): Promise<void> {
    const { source, tell } = this.#options;
    const offer = await requireOffer(source(), request);
    const program = process.execPath;
    const known = { requestId: request.id, to: offer.version, sha256: offer.download.sha256 };
    tell(`fetching ${build.program} ${offer.version} from the server`);
    this.#note({ ...known, state: "preparing" });
    const next = await fetchProgram(source(), offer, program);
    await this.#untilIdle(known);
    this.#ready = { next, program, record: this.#record({ ...known, state: "waiting" }) };
    tell(`stopping for the upgrade to ${offer.version}`);
    this.#options.stop();
  }

  async #untilIdle(known: Partial<UpgradeRecord>): Promise<void> {
    const control = this.#control!;
    const startedAt = performance.now();
    let noted = -1;
    for (;;) {
      const running = control.running();
      const isPatient = performance.now() - startedAt < patienceMs;
      if (running === 0 || !isPatient) control.refuseNew();
      if (control.running() === 0) return;
      if (running !== noted) this.#note({ ...known, state: "waiting", running });
      noted = running;
      await sleep(pollMs, never);
    }
  }

  #note(changes: Partial<UpgradeRecord>): void {
    writeRecord(this.#options.stateDir, this.#record(changes));
  }

  #record(changes: Partial<UpgradeRecord>): Omit<UpgradeRecord, "at"> {
    const parentPid = process.pid;
    const empty = { requestId: "", state: "preparing" as const, to: "", sha256: "", running: 0, problem: "" };
    return { ...empty, from: build.version, parentPid, ...changes };
  }
}

const never = new AbortController().signal;

/** The offered program, if its version is newer, or if any version is wanted. */
export async function requireOffer(source: Source, { isAnyway }: { isAnyway: boolean }): Promise<Offer> {
  const system = `${process.platform}-${process.arch}`;
  const offer = await findOffer(source, { program: build.program, system });
  if (!offer) throw new Error(`the server gives no ${build.program} for ${system}`);
  if (isAnyway || isNewer(offer.version, build.version)) return offer;
  throw new Error(
    `the server gives ${build.program} ${offer.version || "without a version"}, which is not newer than ${build.version}`,
  );
}

/**
 * Reason why the program of this process cannot replace itself; empty: none. `isOfUp`: the daemon
 * belongs to `pinion up`.
 */
export function whyUnavailable({ isOfUp }: { isOfUp: boolean }): string {
  if (isOfUp) return "`pinion up` starts this daemon, with its own program";
  if (build.kind === "package") return "the program is npm's package: `npm install -g` replaces it";
  if (build.kind === "source") return "the program is a checkout: `git pull` and `npm ci` replace it";
  if (process.platform === "win32") return "on Windows install.ps1 of the server replaces the program";
  if (!canBecome()) return "the program cannot start itself again here";
  const folder = dirname(process.execPath);
  try {
    accessSync(folder, constants.W_OK);
    return "";
  } catch {
    return `the program is in ${folder}, where the daemon may not write: its package replaces it, or its owner`;
  }
}

/** A program from an unencrypted server could be replaced on its way. */
function isSafe(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === "https:" || isLoopback(hostname);
}

/** The last upgrade; an upgrade under way at the end of its daemon counts as failed. */
export async function lastUpgrade(stateDir: string): Promise<UpgradeRecord | undefined> {
  const record = await readRecord(stateDir);
  if (!record || !["preparing", "waiting", "trying"].includes(record.state)) return record;
  if (record.parentPid === process.ppid || record.parentPid === process.pid) return record;
  const ended = { ...record, state: "failed" as const, problem: "the daemon ended during the upgrade" };
  writeRecord(stateDir, ended);
  return ended;
}
