/**
 * A run in progress: its state and output. Uses one stream at a time, reopened until the run has
 * ended.
 */
import type { JsonValue } from "@bufbuild/protobuf";
import { type Signal, signal } from "@preact/signals";
import type { Activity } from "#gen/pinion/v1/activity_pb.js";
import { OutputStream, type Run, type RunOutput, RunStatus } from "#gen/pinion/v1/run_pb.js";
import {
  runs as api,
  endIfRefused,
  explainError,
  isForbidden,
  isNotFound,
  isUnreachable,
  streaming,
} from "./api.ts";
import { backoffMs, pause, watchdog } from "./backoff.ts";
import { hiddenFor, listen } from "./live.ts";
import { omittedBytesOf } from "./omission.ts";
import { putRun } from "./runs.ts";

export type OutputPiece = { isError: boolean; text: string };

/** `isCut`: the beginning of `pieces` was dropped. */
export type Output = { pieces: readonly OutputPiece[]; bytes: number; missed: number; isCut: boolean };

export type RunStream = {
  run: Signal<Run | undefined>;
  /** Output received live. */
  output: Signal<Output>;
  /** Output stored at the end. */
  stored: Signal<string | undefined>;
  /** Number of bytes that the device left out of the middle of the stored output. */
  omittedBytes: Signal<number>;
  /** The agent's answer and its data; empty for an executor without answers. */
  result: Signal<{ answer: string; structured: JsonValue | undefined }>;
  /** The agent's activities: live, and after the end from the transcript. */
  activities: Signal<readonly Activity[]>;
  /** Number of entries left out of the middle of the transcript. */
  omitted: Signal<bigint>;
  /** Number of times at which the run may have got a late result. */
  lateNews: Signal<number>;
  isBroken: Signal<boolean>;
  error: Signal<string>;
};

const silenceMsMax = 40_000;
const restAfterMs = 30_000;
/** Maximum characters of live output kept by the page; the stored result has the rest. */
const charactersMax = 400_000;

const noOutput: Output = { pieces: [], bytes: 0, missed: 0, isCut: false };

const ended = new Set([
  RunStatus.COMPLETED,
  RunStatus.FAILED,
  RunStatus.TIMEOUT,
  RunStatus.CANCELLED,
  RunStatus.SKIPPED,
]);
export const isEnded = (run: Run) => ended.has(run.status);

export function createRunStream(): RunStream {
  return {
    run: signal(undefined),
    output: signal(noOutput),
    stored: signal(undefined),
    omittedBytes: signal(0),
    result: signal({ answer: "", structured: undefined }),
    activities: signal([]),
    omitted: signal(0n),
    lateNews: signal(0),
    isBroken: signal(false),
    error: signal(""),
  };
}

/** Follows a run until its end or until the signal aborts. */
export async function followRun(stream: RunStream, runId: string, abort: AbortSignal): Promise<void> {
  let failures = 0;
  const reader = new OutputReader(stream.output);
  while (!abort.aborted) {
    const hidden = hiddenFor(restAfterMs, abort);
    const alive = watchdog(hidden.signal, silenceMsMax);
    try {
      for await (const { update } of api.watchRun({ runId }, streaming(alive.signal))) {
        alive.heard();
        failures = 0;
        stream.isBroken.value = false;
        if (update.case === "run") {
          stream.run.value = update.value;
          putRun(update.value);
        } else if (update.case === "output") reader.take(update.value);
        else if (update.case === "activity" && update.value.activity) {
          stream.activities.value = withActivity(stream.activities.peek(), update.value.activity);
        }
      }
      if (stream.run.value && isEnded(stream.run.value)) break;
    } catch (error) {
      if (abort.aborted) return;
      endIfRefused(error);
      if (isForbidden(error)) return showWithoutOutput(stream, runId, explainError(error), abort);
      if (isNotFound(error) || (!stream.run.value && !isUnreachable(error))) {
        stream.error.value = explainError(error);
        return;
      }
    } finally {
      alive.stop();
      hidden.stop();
    }
    stream.isBroken.value = true;
    await pause(backoffMs(failures++), abort);
  }
  if (!abort.aborted) await readStored(stream, abort);
}

/** Counts the late results of a run, after the end of its stream; returns the end of the count. */
export function hearLateResults(stream: RunStream, runId: string): () => void {
  const note = () => {
    stream.lateNews.value += 1;
  };
  return listen({
    onEvent(event) {
      if (event.runId === runId && /^run\.\w*late/.test(event.kind)) note();
    },
    onGap: note,
  });
}

/** Shows a run whose output the person may not read: its state, and the reason. */
async function showWithoutOutput(
  stream: RunStream,
  runId: string,
  why: string,
  abort: AbortSignal,
): Promise<void> {
  try {
    const { run } = await api.getRun({ runId }, { signal: abort });
    stream.run.value = run;
    if (run) putRun(run);
    stream.stored.value = why;
  } catch (error) {
    if (!abort.aborted) stream.error.value = explainError(error);
  }
}

/** Reads the stored result, or the kept tail of a run without a result. */
async function readStored(stream: RunStream, abort: AbortSignal): Promise<void> {
  const run = stream.run.value;
  if (!run) return;
  try {
    if (run.hasTranscript) {
      const { transcript } = await api.getTranscript({ runId: run.id }, { signal: abort });
      stream.activities.value = transcript?.entries ?? [];
      stream.omitted.value = transcript?.omittedEntries ?? 0n;
    }
    if (!run.windowId) {
      stream.stored.value = run.outputTail;
      stream.result.value = { answer: run.result, structured: undefined };
      return;
    }
    const { windows } = await api.listWindows({ runId: run.id }, { signal: abort });
    const data = windows[0]?.extractedData;
    const text = typeof data?.output === "string" ? data.output : JSON.stringify(data ?? {}, null, 2);
    stream.stored.value = text;
    stream.omittedBytes.value = data?.is_truncated === true ? omittedBytesOf(text) : 0;
    stream.result.value = { answer: windows[0]?.result ?? "", structured: data?.structured };
  } catch (error) {
    if (!abort.aborted) stream.error.value = explainError(error);
  }
}

/** Maximum activities of a live run kept by the page; the transcript has more. */
const activitiesMax = 1_000;

/**
 * Adds an activity: a tool call has one entry with its last state, and pieces of the same text are
 * joined. An activity known from another stream is ignored.
 */
function withActivity(before: readonly Activity[], activity: Activity): readonly Activity[] {
  const { body } = activity;
  if (body.case === "usage") return before;
  const at = before.findIndex((known) =>
    body.case === "toolCall"
      ? known.body.case === "toolCall" && known.body.value.id === body.value.id
      : known.sequence === activity.sequence,
  );
  if (at >= 0) {
    if (body.case !== "toolCall") return before;
    const known = before[at]!;
    const old = known.body.case === "toolCall" ? known.body.value : body.value;
    // An empty field keeps its old value, except the status.
    const value = {
      ...body.value,
      name: body.value.name || old.name,
      title: body.value.title || old.title,
      input: body.value.input || old.input,
      result: body.value.result || old.result,
    };
    return before.with(at, { ...activity, body: { case: "toolCall", value } });
  }
  const last = before.at(-1);
  if (
    (body.case === "text" || body.case === "thinking") &&
    last?.body.case === body.case &&
    body.value.messageId !== "" &&
    last.body.value.messageId === body.value.messageId
  ) {
    const value = { ...body.value, text: last.body.value.text + body.value.text };
    return before.with(-1, { ...activity, body: { case: body.case, value } });
  }
  return [...before.slice(-activitiesMax + 1), activity];
}

/**
 * Joins chunks of output; handles characters split between chunks, gaps, and the start of another
 * attempt.
 */
class OutputReader {
  readonly #output: Signal<Output>;
  #attempt = 0;
  #sequence = 0n;
  #decoders = new Map<OutputStream, TextDecoder>();

  constructor(output: Signal<Output>) {
    this.#output = output;
  }

  take(chunk: RunOutput): void {
    if (chunk.attempt !== this.#attempt) {
      this.#attempt = chunk.attempt;
      this.#sequence = 0n;
      this.#decoders.clear();
      this.#output.value = noOutput;
    }
    if (chunk.sequence <= this.#sequence) return;
    const missed = Number(chunk.sequence - this.#sequence - 1n);
    this.#sequence = chunk.sequence;
    const decoder = this.#decoders.get(chunk.stream) ?? new TextDecoder();
    this.#decoders.set(chunk.stream, decoder);
    const piece = {
      isError: chunk.stream === OutputStream.STDERR,
      text: decoder.decode(chunk.data, { stream: true }),
    };
    this.#output.value = add(this.#output.peek(), piece, { bytes: chunk.data.length, missed });
  }
}

function add(output: Output, piece: OutputPiece, more: { bytes: number; missed: number }): Output {
  const pieces = [...output.pieces];
  const last = pieces.at(-1);
  // A few large pieces render faster than many small pieces.
  if (last && last.isError === piece.isError && last.text.length < 8_000) {
    pieces[pieces.length - 1] = { ...last, text: last.text + piece.text };
  } else pieces.push(piece);
  let characters = pieces.reduce((sum, { text }) => sum + text.length, 0);
  let isCut = output.isCut;
  while (characters > charactersMax && pieces.length > 1) {
    characters -= pieces.shift()!.text.length;
    isCut = true;
  }
  return { pieces, bytes: output.bytes + more.bytes, missed: output.missed + more.missed, isCut };
}
