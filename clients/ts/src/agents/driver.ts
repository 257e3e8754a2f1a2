import type { GivenAnswer } from "../device/questions.ts";
import type { AttentionReason, Question } from "../gen/pinion/v1/activity_pb.js";
import type { ChildEnd } from "../runner/child.ts";
import type { ExecutorConfig } from "../runner/config.ts";
import type { Line } from "./lines.ts";
import type { AttemptRecord } from "./record.ts";
import type { AgentTask } from "./task.ts";

/** A program that an attempt runs, spoken with in lines. */
export interface Dialogue {
  /** Writes a line; nothing happens if the program is gone. */
  write(line: string): void;
  /** Closes its standard input. */
  end(): void;
  /** Lets go of it: its input is closed, and its group is ended if it is not gone within a moment. */
  release(): void;
  /** Stops reading what it prints until `resume`: somebody cannot keep up. */
  pause(): void;
  resume(): void;
  /** How it ended, when its whole group is gone. Never rejects. */
  readonly ended: Promise<ChildEnd>;
}

export interface DialogueOptions {
  args: string[];
  env?: Record<string, string>;
  /** Written at once; the input then stays open unless `isInputOnly`. */
  input?: string;
  /** Nothing will be written after the input. */
  isInputOnly?: boolean;
  onLine: (line: Line) => void;
}

/** What an attempt offers the driver of its agent. */
export interface AgentHost {
  readonly task: AgentTask;
  readonly executor: ExecutorConfig;
  readonly record: AttemptRecord;
  /** Where the agent works. */
  readonly cwd: string;
  /** Aborted when the attempt has to end. */
  readonly signal: AbortSignal;
  /** Starts the executor's command with more arguments, in the attempt's environment. */
  open(options: DialogueOptions): Dialogue;
  /** Writes a file that only this user may read, gone with the attempt; answers its path. */
  file(name: string, text: string): Promise<string>;
  /** Asks a person. The attempt's time stands still meanwhile. `signal`: the agent does not want to know any more. */
  ask(question: Question, signal?: AbortSignal): Promise<GivenAnswer>;
}

/** How an agent's turn ended: what it says by itself, before anything is made of it. */
export interface TurnEnd {
  isDone: boolean;
  /** Its final answer; empty: none. */
  text: string;
  /** The answer as data, where the agent gives it apart from the text. */
  structured?: unknown;
  /** In its own word. */
  stopReason: string;
  attention: AttentionReason[];
  /** Why it is not done, for people. */
  problem?: string;
  /** It may be tried again after this, in ms. */
  retryAfterMs?: number;
  /** The session that it was to go on in is gone. */
  isSessionGone?: boolean;
}

/** An agent's session: one turn at a time. */
export interface AgentSession {
  /** Says something to the agent; resolves at the end of its turn. Rejects only for mistakes of ours. */
  prompt(text: string): Promise<TurnEnd>;
  /** Lets go of the agent; resolves to how its program ended, the last one of several. Never rejects. */
  close(): Promise<ChildEnd | undefined>;
}

/** Opens a session of one kind of agent. */
export type AgentDriver = (host: AgentHost) => Promise<AgentSession>;

/** How a program ended, in words, for a turn that ended with it. */
export function endInWords(program: string, end: ChildEnd): string {
  if (end.problem !== undefined) return end.problem;
  const lines = end.stderrTail.split("\n").filter((line) => line.trim() !== "");
  const tail = lines.length === 0 ? "" : `: ${lines.slice(-5).join("\n")}`;
  if (end.signal !== undefined) return `${program} was ended by ${end.signal}${tail}`;
  return `${program} exited with code ${end.exitCode ?? "?"} before it answered${tail}`;
}
