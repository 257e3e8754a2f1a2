/**
 * The order of a chat's messages. Adapters handle the messages of one answer side by side, so that
 * a later one may come first: messages of a thread that come at once are sorted by their ids, and
 * each waits for the one before.
 */
import type { Heard } from "./line.ts";

type Waiting = { message: Heard; resolve(): void; reject(error: unknown): void };

export function inOrder(take: (message: Heard) => Promise<void>): (message: Heard) => Promise<void> {
  /** By thread: messages that came since the last look. */
  const coming = new Map<string, Waiting[]>();
  /** By thread: the last message at work. */
  const last = new Map<string, Promise<void>>();

  function flush(threadId: string): void {
    const batch = coming.get(threadId) ?? [];
    coming.delete(threadId);
    for (const { message, resolve, reject } of batch.toSorted(
      (a, b) => sequenceOf(a.message) - sequenceOf(b.message),
    )) {
      const before = last.get(threadId) ?? Promise.resolve();
      const work = before.then(() => take(message));
      const ended = work.then(resolve, reject);
      last.set(threadId, ended);
      void ended.then(() => {
        if (last.get(threadId) === ended) last.delete(threadId);
      });
    }
  }

  return (message) =>
    new Promise((resolve, reject) => {
      const batch = coming.get(message.threadId);
      const waiting = { message, resolve, reject };
      if (batch) return batch.push(waiting);
      coming.set(message.threadId, [waiting]);
      // Everything that the adapter handles at once has come by then.
      setImmediate(flush, message.threadId);
    });
}

/**
 * "-100200:57" is 57, and Slack's "1700000000.000200" is that number; 0 for an id without a number.
 */
function sequenceOf({ messageId }: Heard): number {
  const sequence = Number(messageId.slice(messageId.lastIndexOf(":") + 1));
  return Number.isFinite(sequence) ? sequence : 0;
}
