import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type AttemptRef,
  AttemptRefSchema,
  HeldAttemptState,
  type Hello,
  HelloSchema,
  type MachineSchema,
} from "../gen/pinion/v1/device_pb.js";
import type { MachineFingerprint } from "../machine.ts";
import { CLIENT_VERSION } from "../version.ts";
import type { DeviceOptions } from "./options.ts";
import { truncateUtf8 } from "./results/completion.ts";

/**
 * The protocol's bound on the attempts listed in a hello or a heartbeat. Results beyond the bound
 * are sent without being listed.
 */
const LISTED_MAX = 1000;
/** Bound of a protocol field rule, in bytes. */
const CONFIG_PROBLEM_BYTES_MAX = 1000;

type Ref = Pick<AttemptRef, "workId" | "attemptToken">;

/** The attempts of a device: those in progress, and those with a result in the outbox. */
export interface HeldAttempts {
  running: readonly Ref[];
  finished: readonly Ref[];
}

/**
 * Running attempts, and ended attempts without an acknowledgement: the server has the latter as
 * open and would count them as lost.
 */
export function heartbeatList({ running, finished }: HeldAttempts): AttemptRef[] {
  const tokens = new Set(running.map(({ attemptToken }) => attemptToken));
  const ended = finished.filter(({ attemptToken }) => !tokens.has(attemptToken));
  return [...running, ...ended]
    .slice(0, LISTED_MAX)
    .map(({ workId, attemptToken }) => create(AttemptRefSchema, { workId, attemptToken }));
}

/** The first message of a stream. `sessionEpoch`: of the last welcome; 0 for none. */
export function helloOf(options: DeviceOptions, held: HeldAttempts, sessionEpoch: bigint): Hello {
  const tokens = new Set(held.finished.map(({ attemptToken }) => attemptToken));
  const running = held.running
    .filter(({ attemptToken }) => !tokens.has(attemptToken))
    .map(({ workId, attemptToken }) => ({ workId, attemptToken, state: HeldAttemptState.RUNNING }));
  const finished = held.finished.map(({ workId, attemptToken }) => ({
    workId,
    attemptToken,
    state: HeldAttemptState.FINISHED,
  }));
  return create(HelloSchema, {
    installId: options.installId,
    os: options.os,
    appVersion: options.appVersion ?? CLIENT_VERSION,
    label: options.label ?? "",
    agentKinds: options.agentKinds,
    capabilities: [...(options.capabilities ?? []), ...(options.logExcerpt === undefined ? [] : ["log"])],
    maxConcurrency: options.maxConcurrency ?? 1,
    held: [...running, ...finished].slice(0, LISTED_MAX),
    configProblem: truncateUtf8(options.configProblem ?? "", CONFIG_PROBLEM_BYTES_MAX).text,
    ...(options.machine === undefined ? {} : { machine: machineOf(options.machine, sessionEpoch) }),
    ...(options.upgrade === undefined ? {} : { upgrade: options.upgrade }),
    executors: options.executors ?? [],
    workspaces: options.workspaces ?? [],
  });
}

function machineOf(
  { startedAt, ...machine }: MachineFingerprint,
  sessionEpoch: bigint,
): MessageInitShape<typeof MachineSchema> {
  return { ...machine, sessionEpoch, daemonAge: durationFromMs(Math.round(performance.now() - startedAt)) };
}
