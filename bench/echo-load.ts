/** Streams to the bare server: held open, and written to. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { answerQuestions } from "./lib/children.ts";

type Question =
  | { kind: "connect"; url: string; count: number; beatMs?: number }
  | { kind: "echo"; gapsMs: number[] }
  | { kind: "beats" };

const opensMax = 200;
const message = Buffer.alloc(120, 1);
const sessions: ClientHttp2Session[] = [];
const streams: ClientHttp2Stream[] = [];
/** The time of the last write to each stream, and the latencies of the answers. */
const writtenAt: number[] = [];
let took: number[] = [];
let onAnswer: (() => void) | undefined;

function write(index: number): void {
  writtenAt[index] = performance.now();
  streams[index]!.write(message);
}

answerQuestions(async (question: Question) => {
  switch (question.kind) {
    case "connect": {
      let next = 0;
      const open = async () => {
        while (next < question.count) {
          const index = next++;
          const session = connect(question.url);
          session.on("error", () => {});
          const stream = session.request({ ":method": "POST", ":path": "/" }, { endStream: false });
          stream.on("error", () => {});
          stream.on("data", () => {
            took.push(performance.now() - writtenAt[index]!);
            onAnswer?.();
          });
          sessions.push(session);
          streams[index] = stream;
          await new Promise((resolve) => stream.once("response", resolve));
          if (question.beatMs) {
            setTimeout(() => {
              write(index);
              setInterval(write, question.beatMs, index);
            }, question.beatMs * Math.random());
          }
        }
      };
      await Promise.all(Array.from({ length: opensMax }, open));
      return undefined;
    }
    case "echo": {
      took = [];
      const done = new Promise<void>((resolve) => {
        onAnswer = () => {
          if (took.length === question.gapsMs.length) resolve();
        };
      });
      let at = performance.now();
      for (const [index, gap] of question.gapsMs.entries()) {
        at += gap;
        const leftMs = at - performance.now();
        if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
        write(index % streams.length);
      }
      await done;
      return took;
    }
    case "beats": {
      const beats = took;
      took = [];
      return beats;
    }
  }
});
