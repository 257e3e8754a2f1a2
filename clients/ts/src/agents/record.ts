import { create, toBinary } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { truncateUtf8 } from "../device/results/completion.ts";
import {
  type Activity,
  ActivitySchema,
  AttentionReason,
  type Denial,
  DenialSchema,
  type PlanStepStatus,
  ToolCallSchema,
  ToolKind,
  ToolStatus,
  type Transcript,
  TranscriptSchema,
  type Usage,
  UsageSchema,
} from "../gen/pinion/v1/activity_pb.js";
import { KeptText } from "./kept-text.ts";

/** Bounds of the protocol's field rules, in bytes. */
const TEXT_BYTES_MAX = 16_384;
const TOOL_BYTES_MAX = 8_192;
const TITLE_BYTES_MAX = 500;
const NOTE_BYTES_MAX = 500;
/** Bounds of a transcript: entries kept at its beginning and at its end, and total bytes. */
const ENTRIES_MAX = 1_000;
const TRANSCRIPT_BYTES_MAX = 200 * 1024;
const NOTES_MAX = 16;
const DENIALS_MAX = 32;
const PLAN_STEPS_MAX = 64;

/** New state of a tool call; fields left out keep their value. */
export interface ToolCallNews {
  id: string;
  name?: string | undefined;
  kind?: ToolKind | undefined;
  title?: string | undefined;
  status?: ToolStatus | undefined;
  input?: unknown;
  result?: unknown;
}

interface Entry {
  activity: Activity;
  bytes: number;
}

/**
 * Record of one attempt. The agent's activities go to the server, into a bounded transcript, and as
 * readable lines into the output. A line unknown to the driver goes to the output unchanged.
 */
export class AttemptRecord {
  readonly #emit: (activity: Activity) => bigint;
  readonly #write: (text: string) => void;
  readonly #showsThinking: boolean;
  readonly #onUsage: () => void;
  readonly #log: KeptText;
  readonly #head: Entry[] = [];
  #headBytes = 0;
  #tail: Entry[] = [];
  #tailBytes = 0;
  #omitted = 0n;
  readonly #calls = new Map<string, Entry>();
  readonly attention = new Set<AttentionReason>();
  readonly denials: Denial[] = [];
  readonly notes: string[] = [];
  usage: Usage | undefined;
  sessionId: string | undefined;
  modelUsed: string | undefined;

  constructor(options: {
    /** Sends an activity and returns its sequence number. */
    emit: (activity: Activity) => bigint;
    /** Streams a piece of the output to watching clients. */
    write: (text: string) => void;
    showsThinking: boolean;
    outputLimitBytes: number;
    /** Called after every change of the use. */
    onUsage: () => void;
  }) {
    this.#emit = options.emit;
    this.#write = options.write;
    this.#showsThinking = options.showsThinking;
    this.#onUsage = options.onUsage;
    // At most three bytes per character, so the text fits a bound in bytes.
    this.#log = new KeptText(Math.max(1024, Math.floor(options.outputLimitBytes / 3)));
  }

  /** The output: readable lines and raw lines. */
  get output(): { text: string; isCut: boolean } {
    return { text: this.#log.text(), isCut: this.#log.isCut };
  }

  /** Adds a line unknown to the driver. */
  raw(text: string): void {
    this.#line(text);
  }

  /** Adds text of the agent. Pieces of the same text share a `messageId`. */
  text(text: string, messageId = ""): void {
    if (text === "") return;
    for (const piece of piecesOf(text)) {
      this.#add({
        case: "text",
        value: { $typeName: "pinion.v1.AgentText", text: piece, messageId: idOf(messageId) },
      });
    }
    // After the activity: a client with activities on display skips the repeated text.
    this.#print(messageId === "" ? `${text}\n` : text);
  }

  thinking(text: string, messageId = ""): void {
    if (!this.#showsThinking) return;
    for (const piece of piecesOf(text)) {
      this.#add({
        case: "thinking",
        value: { $typeName: "pinion.v1.AgentText", text: piece, messageId: idOf(messageId) },
      });
    }
  }

  tool(news: ToolCallNews): void {
    const id = truncateUtf8(news.id.toWellFormed(), 200).text || "?";
    const known = this.#calls.get(id);
    const before = known?.activity.body.case === "toolCall" ? known.activity.body.value : undefined;
    const input = news.input === undefined ? undefined : boundedText(news.input);
    const result = news.result === undefined ? undefined : boundedText(news.result);
    const call = create(ToolCallSchema, {
      id,
      name: cut(news.name ?? before?.name ?? "", 200),
      kind: news.kind ?? before?.kind ?? ToolKind.OTHER,
      title: oneLine(news.title ?? before?.title ?? news.name ?? ""),
      status: news.status ?? before?.status ?? ToolStatus.PENDING,
      input: input?.text ?? before?.input ?? "",
      isInputTruncated: input?.isTruncated ?? before?.isInputTruncated ?? false,
      result: result?.text ?? before?.result ?? "",
      isResultTruncated: result?.isTruncated ?? before?.isResultTruncated ?? false,
    });
    const activity = this.#send({ case: "toolCall", value: call });
    if (before === undefined || (before.title !== call.title && before.status === ToolStatus.PENDING)) {
      this.#line(`» ${call.name && call.name !== call.title ? `${call.name}: ` : ""}${call.title}`);
    }
    if (known === undefined) {
      const entry = this.#keep(activity);
      this.#calls.set(id, entry);
      const [oldest] = this.#calls.keys();
      if (this.#calls.size > ENTRIES_MAX && oldest !== undefined) this.#calls.delete(oldest);
      return;
    }
    // The transcript has one entry per call, with its last state.
    const bytes = sizeOf(activity);
    this.#tailBytes += this.#tail.includes(known) ? bytes - known.bytes : 0;
    this.#headBytes += this.#head.includes(known) ? bytes - known.bytes : 0;
    known.activity = { ...activity, sequence: known.activity.sequence };
    known.bytes = bytes;
    this.#bound();
  }

  /** Marks open tool calls as failed, because the agent is gone. */
  endOpenTools(): void {
    for (const [id, { activity }] of this.#calls) {
      if (activity.body.case !== "toolCall") continue;
      const { status } = activity.body.value;
      if (status === ToolStatus.PENDING || status === ToolStatus.RUNNING) {
        this.tool({ id, status: ToolStatus.FAILED });
      }
    }
  }

  plan(steps: { text: string; status: PlanStepStatus }[]): void {
    this.#add({
      case: "plan",
      value: {
        $typeName: "pinion.v1.AgentPlan",
        steps: steps.slice(0, PLAN_STEPS_MAX).map(({ text, status }) => ({
          $typeName: "pinion.v1.PlanStep",
          text: cut(text, TITLE_BYTES_MAX),
          status,
        })),
      },
    });
  }

  /** Sets the use so far, as totals from 0. Invalid numbers are ignored. */
  used(usage: {
    inputTokens?: number | undefined;
    outputTokens?: number | undefined;
    cachedInputTokens?: number | undefined;
    cost?: { amount: number; currency: string } | undefined;
    modelTurns?: number | undefined;
  }): void {
    const count = (value: number | undefined) =>
      value === undefined || !(value >= 0) || value > Number.MAX_SAFE_INTEGER
        ? undefined
        : BigInt(Math.round(value));
    const counts = {
      inputTokens: count(usage.inputTokens) ?? this.usage?.inputTokens,
      outputTokens: count(usage.outputTokens) ?? this.usage?.outputTokens,
      cachedInputTokens: count(usage.cachedInputTokens) ?? this.usage?.cachedInputTokens,
      costMicros:
        (usage.cost === undefined ? undefined : count(usage.cost.amount * 1_000_000)) ??
        this.usage?.costMicros,
    };
    const turns = count(usage.modelTurns);
    const currency = usage.cost?.currency.toUpperCase() ?? this.usage?.currency ?? "";
    this.usage = create(UsageSchema, {
      ...Object.fromEntries(Object.entries(counts).filter(([, value]) => value !== undefined)),
      ...(turns === undefined || turns > 0x7fffffffn ? {} : { modelTurns: Number(turns) }),
      currency: counts.costMicros !== undefined && /^[A-Z]{3}$/.test(currency) ? currency : "",
      isCostAgentsOwn: counts.costMicros !== undefined,
    });
    this.#send({ case: "usage", value: this.usage });
    this.#onUsage();
  }

  /** Adds a note of the device about the attempt. */
  note(text: string, attention?: AttentionReason): void {
    if (attention !== undefined) this.attention.add(attention);
    const note = cut(text, NOTE_BYTES_MAX);
    if (this.notes.includes(note)) return;
    if (this.notes.length < NOTES_MAX) this.notes.push(note);
    this.#add({ case: "note", value: { $typeName: "pinion.v1.AgentNote", text: note } });
    this.#line(`[pinion] ${note}`);
  }

  denied(denial: { tool: string; input: unknown; reason: string }): void {
    this.attention.add(AttentionReason.PERMISSION_DENIED);
    const made = create(DenialSchema, {
      tool: cut(denial.tool, 200),
      input: cut(stringOf(denial.input), 1_000),
      reason: cut(denial.reason, 500),
    });
    const isKnown = this.denials.some(({ tool, input }) => tool === made.tool && input === made.input);
    if (!isKnown && this.denials.length < DENIALS_MAX) this.denials.push(made);
  }

  question(question: { id: string; title: string; answer: string; isDefault: boolean }): void {
    this.#line(question.answer === "" ? `? ${question.title}` : `? ${question.title}: ${question.answer}`);
    this.#add({
      case: "question",
      value: {
        $typeName: "pinion.v1.QuestionRef",
        questionId: cut(question.id, 100),
        title: cut(question.title, TITLE_BYTES_MAX),
        answer: cut(question.answer, 200),
        isDefault: question.isDefault,
      },
    });
  }

  transcript(): Transcript {
    const entries = [...this.#head, ...this.#tail].map(({ activity }) => activity);
    return create(TranscriptSchema, { entries, omittedEntries: this.#omitted });
  }

  #add(body: Activity["body"]): void {
    const activity = this.#send(body);
    if (!this.#isJoined(activity)) this.#keep(activity);
  }

  #send(body: Activity["body"]): Activity {
    const activity = create(ActivitySchema, { at: timestampNow(), body });
    return { ...activity, sequence: this.#emit(activity) };
  }

  /** Joins pieces of the same text into an entry, up to the size bound. */
  #isJoined(activity: Activity): boolean {
    const last = this.#tail.at(-1) ?? (this.#tail.length === 0 ? this.#head.at(-1) : undefined);
    const [before, now] = [last?.activity.body, activity.body];
    if (last === undefined || before === undefined) return false;
    if (!(now.case === "text" || now.case === "thinking") || before.case !== now.case) return false;
    if (now.value.messageId === "" || now.value.messageId !== before.value.messageId) return false;
    const joined = before.value.text + now.value.text;
    if (Buffer.byteLength(joined) > TEXT_BYTES_MAX) return false;
    before.value = { ...before.value, text: joined };
    const added = Buffer.byteLength(now.value.text);
    last.bytes += added;
    if (this.#tail.length > 0) this.#tailBytes += added;
    else this.#headBytes += added;
    this.#bound();
    return true;
  }

  #keep(activity: Activity): Entry {
    // A copy: joining later pieces must not change the sent activity.
    const { body } = activity;
    const own =
      body.case === "text" || body.case === "thinking" ? { ...body, value: { ...body.value } } : body;
    const entry = { activity: { ...activity, body: own } as Activity, bytes: sizeOf(activity) };
    const fitsHead =
      this.#tail.length === 0 &&
      this.#head.length < ENTRIES_MAX / 2 &&
      this.#headBytes + entry.bytes <= TRANSCRIPT_BYTES_MAX / 2;
    if (fitsHead) {
      this.#head.push(entry);
      this.#headBytes += entry.bytes;
    } else {
      this.#tail.push(entry);
      this.#tailBytes += entry.bytes;
      this.#bound();
    }
    return entry;
  }

  #bound(): void {
    while (
      this.#tail.length > 1 &&
      (this.#tail.length > ENTRIES_MAX / 2 || this.#headBytes + this.#tailBytes > TRANSCRIPT_BYTES_MAX)
    ) {
      this.#tailBytes -= this.#tail.shift()?.bytes ?? 0;
      this.#omitted += 1n;
    }
  }

  #line(text: string): void {
    this.#print(`${text}\n`);
  }

  #print(text: string): void {
    this.#log.add(text);
    this.#write(text);
  }
}

const sizeOf = (activity: Activity) => toBinary(ActivitySchema, activity).length;

const cut = (text: string, bytesMax: number) => truncateUtf8(text.toWellFormed(), bytesMax).text;

const idOf = (messageId: string) => cut(messageId, 100);

const oneLine = (text: string) => cut(text.replaceAll(/\s+/g, " ").trim(), TITLE_BYTES_MAX);

function stringOf(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

function boundedText(value: unknown): { text: string; isTruncated: boolean } {
  return truncateUtf8(stringOf(value).toWellFormed(), TOOL_BYTES_MAX);
}

/** Splits a text into pieces of whole characters, each within an activity's bound. */
function* piecesOf(text: string): Generator<string> {
  let rest = text.toWellFormed();
  while (rest !== "") {
    const { text: piece } = truncateUtf8(rest, TEXT_BYTES_MAX);
    yield piece;
    rest = rest.slice(piece.length);
  }
}
