import type { AnyMessage, Stream } from "@agentclientprotocol/sdk";
import type { Dialogue } from "./driver.ts";
import { type Line, objectOf } from "./lines.ts";

/** Maximum of unhandled messages; beyond the maximum the agent's output is paused. */
const WAITING_MESSAGES_MAX = 256;

/**
 * Turns lines into a stream of JSON-RPC messages; other lines go to `raw`. If the reader falls
 * behind, the program's output is paused.
 */
export function lineStream(raw: (text: string) => void): {
  stream: Stream;
  onLine: (line: Line) => void;
  attach: (dialogue: Dialogue) => void;
} {
  let dialogue: Dialogue | undefined;
  let incoming: ReadableStreamDefaultController<AnyMessage> | undefined;
  let isPaused = false;
  const early: AnyMessage[] = [];
  const readable = new ReadableStream<AnyMessage>(
    {
      start: (controller) => {
        incoming = controller;
        for (const message of early) controller.enqueue(message);
      },
      pull: () => {
        if (!isPaused) return;
        isPaused = false;
        dialogue?.resume();
      },
    },
    { highWaterMark: WAITING_MESSAGES_MAX },
  );
  const writable = new WritableStream<AnyMessage>({
    write: (message) => dialogue?.write(JSON.stringify(message)),
    close: () => dialogue?.end(),
  });
  return {
    stream: { readable, writable },
    onLine: (line) => {
      const message = objectOf(line);
      if (message === undefined || message.jsonrpc !== "2.0") {
        if (line.text.trim() !== "") raw(line.text);
        return;
      }
      incoming?.enqueue(message as AnyMessage);
      if ((incoming?.desiredSize ?? 1) <= 0 && !isPaused) {
        isPaused = true;
        dialogue?.pause();
      }
    },
    attach: (opened) => {
      dialogue = opened;
      void opened.ended.then(() => {
        try {
          incoming?.close();
        } catch {
          // The connection has closed the stream already.
        }
      });
    },
  };
}
