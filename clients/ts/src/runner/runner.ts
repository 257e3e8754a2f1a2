import { randomUUID } from "node:crypto";
import { toJsonString } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { AgentRunner, type Description, type WorkPlace } from "../agents/agent-runner.ts";
import type { AttemptContext, Rejection } from "../device/attempts/attempt.ts";
import { messageOf } from "../device/errors.ts";
import type { AttemptResult } from "../device/results/completion.ts";
import { type Assignment, AssignmentKind, AssignmentSchema } from "../gen/pinion/v1/device_pb.js";
import { Notification } from "../gen/pinion/v1/run_pb.js";
import type { Logger } from "../logger.ts";
import { identityOfDirectory } from "../private-directory.ts";
import { startTicksOf, startTimeOf } from "../process-table.ts";
import { type AttemptFiles, openAttemptFiles, removeAttemptFiles } from "./attempt-files.ts";
import { runChild } from "./child.ts";
import { type DeviceConfig, type ExecutorConfig, findExecutor } from "./config.ts";
import { ConfigError, type ConfigProblem } from "./config-problems.ts";
import { type Confinement, confinementOf, unconfined } from "./confinement.ts";
import { environmentOf, markerOfAttempt, type Place } from "./environment.ts";
import { Journal } from "./journal.ts";
import type { Notifier } from "./notification.ts";
import { endEscaped } from "./process-group.ts";
import { resultOf, TOKEN_PRINTED } from "./program-result.ts";
import { Redaction, secretsOf } from "./redaction.ts";
import { type SweepReport, sweepLeftovers } from "./sweep.ts";

const NOTIFICATION_CHARACTERS_MAX = 200;

export interface RunnerOptions {
  config: DeviceConfig;
  stateDir: string;
  installId: string;
  /** The device's token, removed from all output of a program. */
  token: string;
  /** Files and directories, besides the state, hidden from isolated programs. */
  hidden: string[];
  /** Source of the configured variables. */
  env: NodeJS.ProcessEnv;
  logger: Logger;
  notifier: Notifier | undefined;
  traceparentOf?: (assignment: Assignment) => string;
  onStart(attempt: { workId: string; attemptToken: string; pid: number; executor: string }): void;
}

/** Parts of an attempt about to start. */
interface StartedAttempt {
  /** Random mark of the attempt's processes. */
  mark: string;
  files: AttemptFiles;
  confinement: Confinement;
  place: WorkPlace;
}

/** Runs assignments as local programs, with the configured executor of each agent kind. */
export class Runner {
  #options: RunnerOptions;
  readonly #journal: Journal;
  readonly #secrets: readonly string[];
  #confinements: Record<string, Confinement>;
  readonly #agents: AgentRunner;
  /** The directory is known from the sweep on, which comes before every start. */
  readonly #place: Place;

  /** Throws a ConfigError if this machine does not support an executor's confinement. */
  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#place = { installId: options.installId, directory: "" };
    this.#secrets = secretsOf(options.token);
    this.#confinements = confinementsOf(options);
    this.#journal = new Journal(options.stateDir);
    this.#agents = new AgentRunner({ ...options, confinements: this.#confinements });
  }

  /**
   * Applies to attempts started from now on. Throws a ConfigError like the constructor, and then
   * changes nothing.
   */
  reconfigure(config: DeviceConfig): void {
    const confinements = confinementsOf({ ...this.#options, config });
    this.#options = { ...this.#options, config };
    this.#confinements = confinements;
    this.#agents.reconfigure({ config, confinements });
  }

  /** Executors and workspaces, with the programs' reported versions. Never rejects. */
  describe(): Promise<Description> {
    return this.#agents.describe();
  }

  /** Ends the processes of an earlier daemon and removes its files. */
  async sweep(): Promise<SweepReport> {
    const { stateDir } = this.#options;
    this.#place.directory = await identityOfDirectory(stateDir);
    const report = await sweepLeftovers(this.#journal, this.#place);
    await removeAttemptFiles(stateDir).catch((error: unknown) => {
      // What an earlier program left there harms no later attempt: each has a directory of its own.
      this.#options.logger.warn({ error: messageOf(error) }, "cannot remove the files of earlier attempts");
    });
    await this.#agents.sweep();
    return report;
  }

  /** Journals an assignment, or returns the reason for a refusal. */
  async admit(assignment: Assignment): Promise<Rejection | undefined> {
    const executor = findExecutor(this.#options.config, assignment.agentKind);
    if (executor === undefined)
      return { reason: "unsupported", message: this.#unsupported(assignment.agentKind) };
    if (assignment.kind === AssignmentKind.TURN) {
      if (assignment.turn === undefined) {
        return { reason: "invalid", message: "the assignment is a turn, and says nothing about it" };
      }
    } else if (executor.stdin === "prompt" && assignment.watcher === undefined) {
      return { reason: "invalid", message: "the assignment has no watcher, and so no prompt" };
    }
    const refusal = this.#agents.refusal(executor, assignment);
    if (refusal !== undefined) return { reason: "unsupported", message: refusal };
    const { workId, attemptToken } = assignment;
    await this.#journal.write({ workId, attemptToken });
    return undefined;
  }

  /** Runs an admitted assignment to its end. Never rejects. */
  async run(assignment: Assignment, context: AttemptContext): Promise<AttemptResult> {
    const executor = findExecutor(this.#options.config, assignment.agentKind);
    if (executor === undefined) return { outcome: "failed", reason: this.#unsupported(assignment.agentKind) };
    const result = await this.#execute(executor, assignment, context);
    await this.#forget(assignment.attemptToken);
    this.#notify(assignment, result);
    return result;
  }

  async #execute(
    executor: ExecutorConfig,
    assignment: Assignment,
    context: AttemptContext,
  ): Promise<AttemptResult> {
    const mark = randomUUID();
    const { turn } = assignment;
    const confinement = this.#confinements[executor.kind] ?? unconfined;
    let files: AttemptFiles | undefined;
    try {
      const { stateDir } = this.#options;
      files = await openAttemptFiles({
        ...{ stateDir, mark, turn, runAs: confinement.runAs },
        input: assignment.event?.input ?? "",
      });
      const attempt = { mark, files, confinement };
      const result = await this.#agents.within({ executor, assignment, context }, (place) =>
        this.#start(executor, assignment, context, { ...attempt, place }),
      );
      if (result.outcome !== "completed") return result;
      const left = await files.collectSnapshot();
      if ("problem" in left) return { ...result, outcome: "failed", reason: left.problem };
      if (left.snapshot === undefined) return result;
      const nextSnapshot = Redaction.whole(Buffer.from(left.snapshot), this.#secrets);
      return { ...result, nextSnapshot: new Uint8Array(nextSnapshot) };
    } catch (error) {
      // Most likely a disk error.
      return { outcome: "failed", reason: `the attempt's files: ${messageOf(error)}` };
    } finally {
      await files?.dispose().catch((error: unknown) => {
        this.#options.logger.warn({ error: messageOf(error) }, "cannot remove an attempt's files");
      });
    }
  }

  async #start(
    executor: ExecutorConfig,
    assignment: Assignment,
    context: AttemptContext,
    attempt: StartedAttempt,
  ): Promise<AttemptResult> {
    const { mark, files, place } = attempt;
    const { installId } = this.#options;
    const timeoutMs = timeoutOf(executor, assignment);
    let journaled: Promise<void> = Promise.resolve();
    let sinceTicks: number | undefined;
    const child = {
      ...this.#childOf(executor, assignment, attempt),
      onStart: (pid: number) => {
        sinceTicks ??= startTicksOf(pid);
        journaled = this.#noteStart(assignment, pid);
        this.#options.onStart({
          workId: assignment.workId,
          attemptToken: assignment.attemptToken,
          pid,
          executor: executor.kind,
        });
      },
    };
    // After any end: escaped processes hold ports and files needed by the next run.
    const cleanUp = async () => {
      await journaled;
      await endEscaped(markerOfAttempt(installId, mark), { sinceTicks });
    };
    if (executor.type !== "command") {
      const run = { executor, assignment, context, place, files, child, timeoutMs };
      const result = await this.#agents.run(run);
      await cleanUp();
      return result;
    }
    const end = await runChild({
      ...child,
      command: executor.command,
      stdin: stdinOf(executor, assignment),
      timeoutMs,
      idleTimeoutMs: executor.idleTimeoutMs,
      outputLimitBytes: executor.outputLimitBytes,
      signal: context.signal,
      onOutput: (stream, data) => context.output(stream, data),
    });
    if (end.kind === "unstartable") await journaled;
    else await cleanUp();
    if (end.hiddenSecrets > 0) this.#options.logger.warn({ workId: assignment.workId }, TOKEN_PRINTED);
    return resultOf({ executor, end, timeoutMs, signal: context.signal, files });
  }

  /** Options of an attempt's programs. */
  #childOf(executor: ExecutorConfig, assignment: Assignment, attempt: StartedAttempt) {
    const { mark, files, confinement, place } = attempt;
    const { env } = this.#options;
    const environment = environmentOf({
      ...{ executor, assignment, files, mark },
      place: this.#place,
      inherited: env,
      traceparent: this.#options.traceparentOf?.(assignment) ?? assignment.traceparent,
    });
    return {
      cwd: place.cwd,
      env: { ...environment, ...place.secrets },
      confinement,
      shown: [files.directory, ...place.shown],
      secrets: this.#secrets,
      killGraceMs: executor.killGraceMs,
    };
  }

  async #noteStart(assignment: Assignment, pid: number): Promise<void> {
    const { workId, attemptToken } = assignment;
    try {
      const startTime = await startTimeOf(pid);
      await this.#journal.write({
        workId,
        attemptToken,
        pid,
        directory: this.#place.directory,
        ...(startTime === undefined ? {} : { startTime }),
      });
    } catch (error) {
      // The run goes on; only a leftover process would be harder to find.
      this.#options.logger.warn({ workId, error: messageOf(error) }, "cannot journal a running agent");
    }
  }

  async #forget(attemptToken: string): Promise<void> {
    try {
      await this.#journal.remove(attemptToken);
    } catch (error) {
      this.#options.logger.warn({ error: messageOf(error) }, "cannot remove a journal note");
    }
  }

  #unsupported(agentKind: string): string {
    const kinds = Object.keys(this.#options.config.executors);
    const configured = kinds.length === 0 ? "none is configured" : `configured: ${kinds.join(", ")}`;
    return agentKind === ""
      ? `this device has no default executor (${configured}); set [device] default_executor`
      : `this device has no executor for "${agentKind}" (${configured}); add [executors.${agentKind}]`;
  }

  #notify(assignment: Assignment, result: AttemptResult): void {
    const { notification } = assignment;
    const isFailure = result.outcome === "failed" || result.outcome === "timeout";
    const isWanted =
      notification === Notification.ALWAYS || (notification === Notification.ON_FAILURE && isFailure);
    if (!isWanted) return;
    const name = assignment.watcher?.name || assignment.watcher?.slug || "Pinion";
    const text = (isFailure ? result.reason : (result.resultText ?? result.output))?.trim() ?? "";
    this.#options.notifier?.(
      `${name}: ${result.outcome}`,
      text.slice(0, NOTIFICATION_CHARACTERS_MAX).toWellFormed(),
    );
  }
}

/** The confinement of each executor. */
function confinementsOf({ config, stateDir, hidden, env }: RunnerOptions): Record<string, Confinement> {
  const problems: ConfigProblem[] = [];
  const entries = Object.values(config.executors).flatMap(({ kind, confinement }) => {
    const found = confinementOf(confinement, { hidden: [stateDir, ...hidden], path: env.PATH });
    if (!("problem" in found)) return [[kind, found] as const];
    problems.push({ line: undefined, key: `executors.${kind}`, message: found.problem });
    return [];
  });
  if (problems.length > 0) throw new ConfigError("device.toml", problems);
  return Object.fromEntries(entries);
}

/** The shorter timeout of device and assignment, in ms. */
function timeoutOf(executor: ExecutorConfig, assignment: Assignment): number | undefined {
  const asked = assignment.timeout === undefined ? 0 : durationMs(assignment.timeout);
  const limits = [executor.timeoutMs ?? 0, asked].filter((ms) => ms > 0);
  return limits.length === 0 ? undefined : Math.min(...limits);
}

function stdinOf(executor: ExecutorConfig, assignment: Assignment): string | undefined {
  switch (executor.stdin) {
    case "none":
      return undefined;
    case "assignment": {
      // The attempt's token proves the attempt to the server and stays with the daemon. A snapshot
      // may be large, so the program gets the snapshot as a file.
      const turn = assignment.turn && { ...assignment.turn, snapshot: new Uint8Array() };
      const shown = { ...assignment, attemptToken: "", ...(turn ? { turn } : {}) };
      return `${toJsonString(AssignmentSchema, shown)}\n`;
    }
    case "prompt":
      return assignment.turn?.input ?? assignment.watcher?.prompt ?? "";
  }
}
