import { chown, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { AttemptContext } from "../device/attempts/attempt.ts";
import type { AttemptResult } from "../device/results/completion.ts";
import {
  AttentionReason,
  ExecutorInfoSchema,
  type Question,
  QuestionDefault,
  QuestionOptionKind,
} from "../gen/pinion/v1/activity_pb.js";
import type { Assignment } from "../gen/pinion/v1/device_pb.js";
import type { ChildEnd, ChildOptions } from "../runner/child.ts";
import type { ExecutorConfig } from "../runner/config.ts";
import { unconfined } from "../runner/confinement.ts";
import { TOKEN_PRINTED } from "../runner/program-result.ts";
import { openAcp } from "./drivers/acp.ts";
import { openClaudeCode } from "./drivers/claude-code.ts";
import { openCodex } from "./drivers/codex.ts";
import { openDialogue } from "./drivers/dialogue.ts";
import type { AgentDriver, AgentHost, AgentSession, TurnEnd } from "./drivers/driver.ts";
import type { AttemptRecord } from "./record.ts";
import type { Sessions } from "./sessions.ts";
import { checkAnswer } from "./structured.ts";
import { type AgentTask, snapshotOf } from "./task.ts";
import type { TimeLimit } from "./time-limit.ts";

const drivers: Record<Exclude<ExecutorConfig["type"], "command">, AgentDriver> = {
  "claude-code": openClaudeCode,
  codex: openCodex,
  acp: openAcp,
};

/** Default time limit of an answer, from the protocol. */
const QUESTION_TIMEOUT_MS = 10 * 60_000;

export interface AgentRun {
  executor: ExecutorConfig;
  assignment: Assignment;
  context: AttemptContext;
  /** Directory of the agent, and the workspace's name; empty: none. */
  place: { cwd: string; workspace: string };
  /**
   * Reason why the org's allowed hosts are not enforced; undefined: the hosts are enforced, or none
   * are named.
   */
  egressProblem: string | undefined;
  /** The executor's version; empty if unknown. */
  version: string;
  /** Directory of this attempt alone, for files given to the agent. */
  directory: string;
  /** Options for starting the attempt's programs. */
  child: Omit<
    ChildOptions,
    "command" | "onOutput" | "onPipes" | "stdin" | "timeoutMs" | "outputLimitBytes" | "signal"
  >;
  timeoutMs: number | undefined;
  sessions: Sessions;
}

/** The conversation with an agent: its sessions, its answers and their schema, its questions. */
export class AgentAttempt {
  readonly #run: AgentRun;
  readonly #record: AttemptRecord;
  readonly #task: AgentTask;
  readonly #stop: AbortController;
  readonly #limit: TimeLimit;
  readonly #idle: TimeLimit;
  readonly #onAnswer: (result: AttemptResult) => void;
  readonly #driver: AgentDriver;
  #files = 0;
  #structured: unknown;

  constructor(
    run: AgentRun,
    parts: {
      record: AttemptRecord;
      task: AgentTask;
      stop: AbortController;
      limit: TimeLimit;
      idle: TimeLimit;
      /** The agent has answered, and its program has not ended yet. */
      onAnswer: (result: AttemptResult) => void;
    },
  ) {
    this.#run = run;
    this.#record = parts.record;
    this.#task = parts.task;
    this.#stop = parts.stop;
    this.#limit = parts.limit;
    this.#idle = parts.idle;
    this.#onAnswer = parts.onAnswer;
    this.#driver = drivers[run.executor.type === "command" ? "claude-code" : run.executor.type];
  }

  /** Runs the agent and returns its last turn and the end of its program. */
  async toItsEnd(): Promise<{ end: TurnEnd; child: ChildEnd | undefined }> {
    const { egressProblem, executor } = this.#run;
    if (egressProblem !== undefined) {
      this.#record.note(
        `the hosts that the agent may connect to are not enforced: ${egressProblem}`,
        AttentionReason.NOT_ENFORCED,
      );
    }
    const wanted = this.#task.session;
    if (wanted !== undefined) {
      const kept = await this.#run.sessions.find(wanted.id, executor.kind);
      if (kept === undefined || kept.cwd !== this.#run.place.cwd) {
        const gone = this.#goneSession("this device has no such session of this agent any more");
        if (gone !== undefined) return { end: gone, child: undefined };
      }
    }
    let result = await this.#converse();
    if (result.end.isSessionGone && this.#task.session !== undefined) {
      const gone = this.#goneSession(result.end.problem ?? "");
      if (gone !== undefined) return { end: gone, child: result.child };
      result = await this.#converse();
    }
    return result;
  }

  /**
   * Drops the session. Returns a failed turn if the session is required, and undefined otherwise.
   */
  #goneSession(why: string): TurnEnd | undefined {
    const isRequired = this.#task.session?.isRequired === true;
    this.#task.session = undefined;
    if (isRequired) {
      const problem = `the session to go on in is gone: ${why}`;
      return {
        isDone: false,
        text: "",
        stopReason: "session_gone",
        attention: [AttentionReason.SESSION_GONE],
        problem,
      };
    }
    this.#record.note("the session to go on in is gone; a fresh one was begun", AttentionReason.SESSION_GONE);
    return undefined;
  }

  async #converse(): Promise<{ end: TurnEnd; child: ChildEnd | undefined }> {
    const session = await this.#driver(this.#host());
    let end: TurnEnd;
    try {
      end = await this.#withSchema(session, await session.prompt(this.#task.prompt));
    } finally {
      this.#record.endOpenTools();
    }
    if (end.isDone) this.#onAnswer(this.resultOf(end, undefined));
    return { end, child: await session.close() };
  }

  /** Sends the schema errors of a wrong answer to the agent, once. */
  async #withSchema(session: AgentSession, first: TurnEnd): Promise<TurnEnd> {
    const { schema } = this.#task;
    if (schema === undefined || !first.isDone) return first;
    const checked = checkAnswer(schema, first);
    if (checked.isValid) {
      this.#structured = checked.value;
      return first;
    }
    this.#record.note(`the answer does not match the schema: ${checked.problem}`);
    const second = await session.prompt(
      `Your answer does not match the JSON schema that was asked for:\n\n${checked.problem}\n\nAnswer again with JSON that matches it, and nothing else.`,
    );
    const again = second.isDone ? checkAnswer(schema, second) : undefined;
    if (again?.isValid === true) {
      this.#structured = again.value;
      return second;
    }
    const problem = `schema: ${again?.problem ?? second.problem ?? checked.problem}`;
    return {
      ...second,
      isDone: false,
      text: second.text || first.text,
      attention: [...first.attention, ...second.attention, AttentionReason.SCHEMA],
      problem,
    };
  }

  resultOf(end: TurnEnd, child: ChildEnd | undefined): AttemptResult {
    const record = this.#record;
    for (const attention of end.attention) record.attention.add(attention);
    if (end.isDone && end.text.trim() === "" && this.#structured === undefined) {
      record.attention.add(AttentionReason.NO_ANSWER);
    }
    if ((child?.hiddenSecrets ?? 0) > 0) {
      record.note(TOKEN_PRINTED);
    }
    const isEmpty = end.isDone && record.attention.has(AttentionReason.NO_ANSWER);
    if (isEmpty && this.#run.executor.expect === "output") {
      return this.resultOf({ ...end, isDone: false, problem: "it ended without an answer" }, child);
    }
    const { text, isCut } = record.output;
    const { executor, version, assignment } = this.#run;
    const { type, kind } = executor;
    const isNext = end.isDone && assignment.turn?.usesSnapshot === true && record.sessionId !== undefined;
    if (record.sessionId !== undefined) this.#keepSession(record.sessionId);
    return {
      outcome: end.isDone ? "completed" : "failed",
      // The reply to a turn is the answer; the transcript has the rest.
      output: assignment.turn === undefined ? text : end.text,
      isOutputTruncated: assignment.turn === undefined && isCut,
      resultText: end.text,
      stopReason: end.stopReason,
      attention: [...record.attention],
      denials: record.denials,
      notes: record.notes,
      transcript: record.transcript(),
      executor: create(ExecutorInfoSchema, { kind, type, version }),
      ...(this.#structured === undefined ? {} : { structured: this.#structured }),
      ...(record.usage === undefined ? {} : { usage: record.usage }),
      ...(record.sessionId === undefined ? {} : { sessionId: record.sessionId }),
      ...(record.modelUsed === undefined ? {} : { modelUsed: record.modelUsed }),
      ...(child?.exitCode === undefined ? {} : { exitCode: child.exitCode }),
      ...(child?.signal === undefined ? {} : { signal: child.signal }),
      ...(child === undefined ? {} : { stderrTail: child.stderrTail }),
      ...(isNext ? { nextSnapshot: snapshotOf(kind, record.sessionId ?? "") } : {}),
      ...(end.isDone ? {} : { reason: end.problem ?? "the agent did not do it" }),
      ...(end.isDone || end.retryAfterMs === undefined ? {} : { retryAfterMs: end.retryAfterMs }),
    };
  }

  #keepSession(id: string): void {
    const { executor, place, assignment, sessions } = this.#run;
    const { cwd, workspace } = place;
    void sessions.keep({
      id,
      kind: executor.kind,
      cwd,
      workspace,
      workId: assignment.workId,
      atMs: Date.now(),
    });
  }

  #host(): AgentHost {
    const { executor, place, child, directory } = this.#run;
    return {
      task: this.#task,
      executor,
      record: this.#record,
      cwd: place.cwd,
      signal: this.#stop.signal,
      open: (options) =>
        openDialogue(
          {
            ...child,
            signal: this.#stop.signal,
            command: [...executor.command, ...options.args],
            env: { ...child.env, ...options.env },
          },
          {
            input: options.input,
            isInputOnly: options.isInputOnly ?? false,
            onLine: (line) => {
              this.#idle.restart();
              options.onLine(line);
            },
            onStderr: (data) => {
              this.#idle.restart();
              this.#run.context.output("stderr", data);
            },
          },
        ),
      file: async (name, text) => {
        const path = join(directory, `${this.#files++}-${name}`);
        // `wx` fails if a program has put a file or a link at the path.
        await writeFile(path, text, { mode: 0o600, flag: "wx" });
        const { runAs } = child.confinement ?? unconfined;
        if (runAs !== undefined) await chown(path, runAs.uid, runAs.gid);
        return path;
      },
      ask: (question, signal) => this.#ask(question, signal),
    };
  }

  async #ask(question: Question, signal: AbortSignal | undefined) {
    const policy = this.#run.assignment.questions;
    const timeoutMs = policy?.timeout === undefined ? QUESTION_TIMEOUT_MS : durationMs(policy.timeout);
    const signals = [this.#stop.signal, ...(signal === undefined ? [] : [signal])];
    const goOn = [this.#limit.pause(), this.#idle.pause()];
    this.#record.question({ id: question.id, title: question.title, answer: "", isDefault: false });
    const given = await this.#run.context.ask(question, { timeoutMs, signal: AbortSignal.any(signals) });
    for (const each of goOn) each();
    const answer =
      given.optionId === "" && given.text === "" ? defaultOf(question, policy?.defaultAnswer) : given;
    const chosen = question.options.find(({ id }) => id === answer.optionId);
    if (!this.#stop.signal.aborted && signal?.aborted !== true) {
      if (answer.isDefault) this.#record.attention.add(AttentionReason.QUESTION_EXPIRED);
      const label = chosen?.label ?? (answer.text || "(nobody answered)");
      this.#record.question({
        id: question.id,
        title: question.title,
        answer: label,
        isDefault: answer.isDefault,
      });
    }
    return answer;
  }
}

/** The default answer, used without a person's answer. */
function defaultOf(question: Question, wanted: QuestionDefault | undefined) {
  const first = (kind: QuestionOptionKind) => question.options.find((option) => option.kind === kind)?.id;
  const allowed = wanted === QuestionDefault.ALLOW ? first(QuestionOptionKind.ALLOW_ONCE) : undefined;
  return { optionId: allowed ?? first(QuestionOptionKind.DENY_ONCE) ?? "", text: "", isDefault: true };
}
