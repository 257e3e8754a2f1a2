/** The devices, in a process of their own, so that what they cost is told apart from what the server does. */
import { answerQuestions } from "./lib/children.ts";
import { LoadDevice } from "./lib/device.ts";

type Question =
  | {
      kind: "connect";
      urls: string[];
      devices: { installId: string; token: string }[];
      slots: number;
      beatMs?: number;
      /** Streams that are being opened at once. */
      opensMax?: number;
    }
  /** Resolves when so many completions have been acknowledged since the last reset. */
  | { kind: "acknowledged"; count: number; withinMs: number }
  | { kind: "reset" }
  | { kind: "measurements" }
  | { kind: "close" };

/** By the wall clock with fractions, in milliseconds. */
const now = () => performance.timeOrigin + performance.now();

type Measured = {
  /** When a run's frame arrived, and when it was due. */
  frames: { runId: string; dueAt: number; at: number }[];
  /** From the completion's write to its acknowledgement. */
  acks: number[];
  beats: number[];
  ended: number;
};

let devices: LoadDevice[] = [];
let measured: Measured;
let completedAt: Map<string, number>;
let acknowledged = 0;
let onAcknowledged: (() => void) | undefined;

function reset(): void {
  measured = { frames: [], acks: [], beats: [], ended: 0 };
  completedAt = new Map();
  acknowledged = 0;
}
reset();

const opensMaxDefault = 200;
const openWithinMs = 120_000;

async function connectAll(question: Extract<Question, { kind: "connect" }>): Promise<number> {
  const startedAt = performance.now();
  const { urls, slots, beatMs } = question;
  let opening = 0;
  let next = 0;
  let welcomed = 0;
  await new Promise<void>((resolve, reject) => {
    const late = setTimeout(
      () => reject(new Error(`${welcomed} of ${question.devices.length} devices were welcomed`)),
      openWithinMs,
    );
    const open = () => {
      while (opening < (question.opensMax ?? opensMaxDefault) && next < question.devices.length) {
        opening++;
        const index = next++;
        devices.push(
          new LoadDevice(urls[index % urls.length]!, question.devices[index]!, {
            slots,
            ...(beatMs ? { beatMs } : {}),
            listener: {
              welcomed() {
                opening--;
                welcomed++;
                if (welcomed === question.devices.length) {
                  clearTimeout(late);
                  resolve();
                } else {
                  open();
                }
              },
              assigned: (runId, dueAt) => measured.frames.push({ runId, dueAt, at: now() }),
              completed: (runId) => completedAt.set(runId, performance.now()),
              acknowledged(runId) {
                measured.acks.push(performance.now() - completedAt.get(runId)!);
                completedAt.delete(runId);
                acknowledged++;
                onAcknowledged?.();
              },
              beaten: (ms) => measured.beats.push(ms),
              ended: () => {
                measured.ended++;
              },
            },
          }),
        );
      }
    };
    open();
  });
  return performance.now() - startedAt;
}

answerQuestions(async (question: Question) => {
  switch (question.kind) {
    case "connect":
      return connectAll(question);
    case "reset":
      return reset();
    case "acknowledged":
      await new Promise<void>((resolve, reject) => {
        const late = setTimeout(
          () => reject(new Error(`${acknowledged} of ${question.count} runs in ${question.withinMs} ms`)),
          question.withinMs,
        );
        onAcknowledged = () => {
          if (acknowledged < question.count) return;
          clearTimeout(late);
          onAcknowledged = undefined;
          resolve();
        };
        onAcknowledged();
      });
      return now();
    case "measurements":
      return measured;
    case "close":
      for (const device of devices) device.close();
      devices = [];
      return undefined;
  }
});
