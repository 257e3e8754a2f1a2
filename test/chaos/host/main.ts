/**
 * A process with many devices: each is the real client with its real outbox on the disk. Each event
 * is written to file descriptor 3 before the process goes on, so that a kill loses no line of the
 * record, and a full disk does not affect the record.
 */
import { readFileSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { connectDevice, Os, parseConfig, runDaemon, type Timing } from "@pinion/client";
import { createRandom } from "../../support/random.ts";
import { realNow } from "../clock.ts";
import type { Record } from "../history.ts";
import { seedOf } from "../random.ts";
import { programsFileOf } from "./programs-file.ts";
import { tapTransport } from "./tap.ts";

export type HostDevice = {
  deviceId: string;
  installId: string;
  token: string;
  url: string;
  stateDir: string;
  slots: number;
  /**
   * Runs a child program for each attempt, like the daemon; otherwise a function of this process
   * does the work.
   */
  isDaemon: boolean;
};

export type HostConfig = {
  devices: HostDevice[];
  /** Maximum duration of an attempt's work, in milliseconds. */
  workMsMax: number;
  /** Breaks the client on purpose: results waiting in the outbox are deleted at the start. */
  dropsOutbox: boolean;
  /** Every attempt completes, as far as the work is concerned. */
  isReliable: boolean;
  /** Waits long before dialling again, and hands results over without a stream at once. */
  prefersUnary: boolean;
};

const historyFile = 3;
/**
 * Short, so that a run of minutes sees many reconnects; the ratios between the values equal the
 * ratios of the defaults.
 */
const timingDefault: Partial<Timing> = {
  dialDeadlineMs: 2_000,
  welcomeDeadlineMs: 3_000,
  drainLingerMs: 500,
  backoffBaseMs: 100,
  backoffCapMs: 1_500,
  backoffResetMs: 2_000,
  ackDeadlineMs: 3_000,
  ackDeadlineCapMs: 8_000,
  unaryAfterMs: 2_500,
  unaryDeadlineMs: 3_000,
  // A fleet survives wrong refusals by a service for a short time.
  refusalsMax: 1_000,
};
/** The largest output of an attempt, in characters. */
const outputCharactersMax = 40_000;
const stubbornMs = 800;

const record: Record = (happening) => {
  const line = Buffer.from(`${JSON.stringify({ at: realNow(), ...happening })}\n`);
  for (let written = 0; written < line.length; ) {
    try {
      written += writeSync(historyFile, line, written);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
  }
};

const config = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as HostConfig;
const timing: Partial<Timing> = config.prefersUnary
  ? { ...timingDefault, backoffBaseMs: 6_000, backoffCapMs: 6_000, unaryAfterMs: 200 }
  : timingDefault;
const devicesByToken = new Map(config.devices.map(({ token, deviceId }) => [token, deviceId]));
tapTransport(record, (token) => devicesByToken.get(token) ?? "a stranger");

for (const device of config.devices) {
  if (config.dropsOutbox) rmSync(join(device.stateDir, "outbox"), { recursive: true, force: true });
  if (device.isDaemon) startDaemon(device);
  else startClient(device);
}
process.send!("started");
// The parent process is gone.
process.on("disconnect", () => process.exit(0));

/** The work of an attempt depends only on its token: length, outcome and output. */
function workOf(attemptToken: string) {
  const random = createRandom(seedOf(attemptToken));
  // Most work is short, some outlasts the TTL.
  const durationMs = Math.round(20 + config.workMsMax * random.next() ** 3);
  const output = `${attemptToken} ${"é-".repeat(random.chance(0.1) ? random.whole(0, outputCharactersMax / 2) : 20)}`;
  const outcome = random.next();
  return { durationMs, output, outcome, isStubborn: random.chance(0.1) };
}

function startClient(device: HostDevice): void {
  connectDevice({
    url: device.url,
    token: device.token,
    installId: device.installId,
    os: Os.LINUX,
    agentKinds: ["chaos"],
    stateDir: device.stateDir,
    maxConcurrency: device.slots,
    timing,
    async onAssignment({ workId, attemptToken }, { signal, output }) {
      const attempt = { device: device.deviceId, run: workId, token: attemptToken };
      record({ kind: "work", phase: "begun", ...attempt });
      let phase: "ended" | "finished" = "ended";
      try {
        const work = workOf(attemptToken);
        output("stdout", "it begins\n");
        // Some agents ignore the request to end.
        const wait = delay(work.durationMs, undefined, { signal }).catch(() =>
          work.isStubborn ? delay(stubbornMs) : undefined,
        );
        await wait;
        if (signal.aborted) return { outcome: "failed", reason: "it was told to end" };
        phase = "finished";
        if (config.isReliable) return { outcome: "completed", output: work.output };
        if (work.outcome < 0.03) throw new Error("the handler broke");
        if (work.outcome < 0.13) return { outcome: "failed", output: work.output, reason: "it did not work" };
        return { outcome: "completed", output: work.output };
      } finally {
        record({ kind: "work", phase, ...attempt });
      }
    },
  }).closed.catch((error) => {
    record({ kind: "gaveUp", device: device.deviceId, error: String(error) });
  });
}

function startDaemon(device: HostDevice): void {
  // The program itself writes down its beginning and its end.
  const note = (phase: string) =>
    `echo "${phase} $PINION_RUN_ID $PINION_ATTEMPT $(date +%s%3N)" >> ${programsFileOf(device)}`;
  const work = `cat > /dev/null; sleep 0.$(( $$ % 9 )); echo "$PINION_RUN_ID by $$"; ${note("finished")}`;
  // One in ten fails, by the process id.
  const end = config.isReliable ? "true" : "[ $(( $$ % 10 )) -ne 0 ]";
  const script = `${note("begun")}; ${work}; ${end}`;
  const toml = `[device]
default_executor = "agent"
max_concurrency = ${device.slots}
[executors]
agent = { command = ["sh", "-c", ${JSON.stringify(script)}], stdin = "prompt", kill_grace = "300ms" }
`;
  runDaemon({
    url: device.url,
    token: device.token,
    installId: device.installId,
    os: Os.LINUX,
    stateDir: device.stateDir,
    config: parseConfig(toml),
    signal: new AbortController().signal,
    timing,
  }).catch((error) => {
    record({ kind: "gaveUp", device: device.deviceId, error: String(error) });
  });
}
