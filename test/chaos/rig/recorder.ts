import { createWriteStream } from "node:fs";
import { realNow } from "../clock.ts";
import { type Entry, parseHistory, type Record } from "../history.ts";

/**
 * Collects the history of all processes: completely in a file, and in memory the part needed by the
 * checker.
 */
export type Recorder = {
  record: Record;
  /** Appends whole lines written by another process. */
  append(text: string): void;
  /** In the order of the moments. */
  entries(): Entry[];
  readonly messages: number;
  close(): Promise<void>;
};

export function openRecorder(file: string): Recorder {
  const stream = createWriteStream(file);
  const kept: Entry[] = [];
  let messages = 0;
  const keep = (entry: Entry) => {
    if (entry.kind === "sent" || entry.kind === "seen") {
      messages += 1;
      // Half of all messages, not used by any rule.
      if (entry.message.case === "heartbeat" || entry.message.case === "output") return;
    }
    kept.push(entry);
  };
  return {
    record(happening) {
      const entry: Entry = { at: realNow(), ...happening };
      stream.write(`${JSON.stringify(entry)}\n`);
      keep(entry);
    },
    append(text) {
      stream.write(text);
      for (const entry of parseHistory(text)) keep(entry);
    },
    entries: () => [...kept].sort((a, b) => a.at - b.at),
    get messages() {
      return messages;
    },
    close: () => new Promise((resolve) => stream.end(resolve)),
  };
}
