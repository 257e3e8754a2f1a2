import type { GivenAnswer } from "../../device/attempts/questions.ts";
import type { AttentionReason, Question } from "../../gen/pinion/v1/activity_pb.js";
import type { ChildEnd } from "../../runner/child.ts";
import type { ExecutorConfig } from "../../runner/config.ts";
import type { AttemptRecord } from "../record.ts";
import type { AgentTask } from "../task.ts";
import type { Line } from "./lines.ts";

/** A running program with input and output in lines. */
export interface Dialogue {
  /** Writes a line; does nothing after the program's end. */
  write(line: string): void;
  /** Closes the program's standard input. */
  end(): void;
  /**
   * Closes the input, and ends the process group if the program is still running after a short
   * grace.
   */
  release(): void;
  /** Stops reading the program's output until `resume`, because the reader is behind. */
  pause(): void;
  resume(): void;
  /** End of the program, after the end of its whole process group. Never rejects. */
  readonly ended: Promise<ChildEnd>;
}

export interface DialogueOptions {
  args: string[];
  env?: Record<string, string>;
  /** Written at once; the input then stays open unless `isInputOnly`. */
  input?: string;
  /** No further writes follow the input. */
  isInputOnly?: boolean;
  onLine: (line: Line) => void;
}

/** Functions and data of an attempt for the driver of its agent. */
export interface AgentHost {
  readonly task: AgentTask;
  readonly executor: ExecutorConfig;
  readonly record: AttemptRecord;
  /** Directory of the agent. */
  readonly cwd: string;
  /** Aborted when the attempt has to end. */
  readonly signal: AbortSignal;
  /** Starts the executor's command with more arguments, in the attempt's environment. */
  open(options: DialogueOptions): Dialogue;
  /** Writes a file readable only by this user and removed with the attempt; returns its path. */
  file(name: string, text: string): Promise<string>;
  /**
   * Asks a person. The attempt's time limit is paused meanwhile. `signal`: the agent withdraws the
   * question.
   */
  ask(question: Question, signal?: AbortSignal): Promise<GivenAnswer>;
}

/** End of an agent's turn as reported by the agent. */
export interface TurnEnd {
  isDone: boolean;
  /** The final answer; empty: none. */
  text: string;
  /** The answer as data, if the agent reports data apart from the text. */
  structured?: unknown;
  /** The agent's own stop reason. */
  stopReason: string;
  attention: AttentionReason[];
  /** Reason of a failure, for people. */
  problem?: string;
  /** Delay before another try, in ms. */
  retryAfterMs?: number;
  /** The session to resume no longer exists. */
  isSessionGone?: boolean;
}

/** An agent's session, with one turn at a time. */
export interface AgentSession {
  /**
   * Sends a prompt to the agent and resolves at the end of its turn. Rejects only for programming
   * errors.
   */
  prompt(text: string): Promise<TurnEnd>;
  /** Releases the agent and resolves to the end of its last program. Never rejects. */
  close(): Promise<ChildEnd | undefined>;
}

/** Opens a session of one agent type. */
export type AgentDriver = (host: AgentHost) => Promise<AgentSession>;

/** Describes the end of a program, for a turn ended by the program's end. */
export function endInWords(program: string, end: ChildEnd): string {
  if (end.problem !== undefined) return end.problem;
  const lines = end.stderrTail.split("\n").filter((line) => line.trim() !== "");
  const tail = lines.length === 0 ? "" : `: ${lines.slice(-5).join("\n")}`;
  if (end.signal !== undefined) return `${program} was ended by ${end.signal}${tail}`;
  return `${program} exited with code ${end.exitCode ?? "?"} before it answered${tail}`;
}
