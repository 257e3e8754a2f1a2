import type { OutputStream } from "#gen/pinion/v1/run_pb.js";
import { Bell } from "../../time/abort.ts";
import type { Feed } from "../cluster/feed.ts";
import type { OutputChunk } from "../cluster/output.ts";
import { activityStream } from "../device/messages/activity.ts";

/**
 * Maximum output chunks held for a slow viewer; the oldest are dropped, and the sequence shows the
 * gap.
 */
const chunksWaitingMax = 256;
/** Milliseconds between reads without a wake-up, in case a wake-up was lost. */
const rereadMs = 5_000;
/** As documented in the .proto. */
const keepaliveMs = 15_000;

/** The state of a run or a turn, as a viewer sees the state. */
export type Look<Update> = {
  isEnded: boolean;
  /** Equal texts: nothing has changed that a viewer sees. A heartbeat alone is no news. */
  text: string;
  update: Update;
};

export type Watching<Update> = {
  feed: Pick<Feed, "watchWork">;
  work: { orgId: string; workId: string };
  signal: AbortSignal;
  /** Output up to this sequence is left out. */
  afterSequence?: bigint;
  isEndAlone: boolean;
  /** Reads the state; refuses if there is no such work. */
  look: () => Promise<Look<Update>>;
  outputOf: (chunk: OutputChunk) => Update[];
  keepalive: () => Update;
};

/**
 * The updates of a run or a turn: its state now and at every change, its output, and keepalives.
 * Ends with the state of the ended work, which comes last: output received by then was written
 * before the end. `isEndAlone`: the end is a message of its own, always the last; otherwise work
 * that has ended already is shown before its output.
 */
export async function* watching<Update>(options: Watching<Update>): AsyncGenerator<Update> {
  const { signal } = options;
  const news = collectNews(options);
  let shown: string | undefined;
  let saidAt = performance.now();
  let lookedAt = 0;
  try {
    while (!signal.aborted) {
      let seen: Look<Update> | undefined;
      if (news.takeChanged() || performance.now() - lookedAt >= rereadMs) {
        lookedAt = performance.now();
        seen = await options.look();
      }
      const pieces = news.takeOutput().flatMap(options.outputOf);
      const isEnded = seen?.isEnded ?? false;
      const isNews = seen?.text !== shown || (isEnded && options.isEndAlone);
      const updates = seen && isNews ? [seen.update] : [];
      const isEndLast = isEnded && (options.isEndAlone || shown !== undefined);
      yield* isEndLast ? [...pieces, ...updates] : [...updates, ...pieces];
      if (isEnded) return;
      shown = seen?.text ?? shown;
      const now = performance.now();
      if (updates.length + pieces.length > 0) saidAt = now;
      else if (now - saidAt >= keepaliveMs) {
        saidAt = now;
        yield options.keepalive();
      }
      await news.bell.wait(rereadMs, signal);
    }
  } finally {
    news.stop();
  }
}

/** Collects what the feed tells about the work until the viewer takes it. */
function collectNews<Update>({ feed, work, afterSequence }: Watching<Update>) {
  const bell = new Bell();
  let chunks: OutputChunk[] = [];
  // The state is read after a reported change; otherwise only the output is passed on.
  let mayHaveChanged = true;
  const stop = feed.watchWork(work, {
    onChange() {
      mayHaveChanged = true;
      bell.ring();
    },
    onOutput(chunk) {
      const isKnown = afterSequence !== undefined && chunk.sequence <= afterSequence;
      if (isKnown && chunk.stream !== activityStream) return;
      chunks.push(chunk);
      if (chunks.length > chunksWaitingMax) chunks.shift();
      bell.ring();
    },
  });
  return {
    bell,
    stop,
    takeChanged(): boolean {
      const taken = mayHaveChanged;
      mayHaveChanged = false;
      return taken;
    },
    takeOutput(): OutputChunk[] {
      const taken = chunks;
      chunks = [];
      return taken;
    },
  };
}

/** The fields of a chunk of output in messages to viewers. */
export function outputFields({ sequence, stream, data, attempt }: OutputChunk) {
  return { sequence, stream: stream as OutputStream, data, attempt };
}
