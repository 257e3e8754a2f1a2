/** The devices, in a separate process, so that their cost is not counted as the server's. */
import { backoffMs } from "../clients/ts/src/device/outcome.ts";
import { defaultTiming } from "../clients/ts/src/device/timing.ts";
import { answerQuestions } from "./lib/children.ts";
import { LoadDevice } from "./lib/device.ts";

type Question =
  | {
      kind: "connect";
      urls: string[];
      devices: { installId: string; token: string }[];
      slots: number;
      beatMs?: number;
      isHolding?: boolean;
      /** Reconnects after the end of its stream, like the real daemon. */
      isReturning?: boolean;
    }
  /** Resolves, with the time, when all returning streams have been welcomed again. */
  | { kind: "returned"; withinMs: number }
  /** Completes the held runs. */
  | { kind: "release" }
  /** Resolves when so many completions have been acknowledged since the last reset. */
  | { kind: "acknowledged"; count: number; withinMs: number }
  | { kind: "reset" }
  | { kind: "measurements" }
  | { kind: "close" };

/** By the wall clock with fractions, in milliseconds. */
const now = () => performance.timeOrigin + performance.now();

type Measured = {
  /** The arrival time of a run's frame, and the run's due time. */
  frames: { runId: string; dueAt: number; at: number }[];
  /** From the completion's write to its acknowledgement. */
  acks: number[];
  beats: number[];
  ended: number;
};

const devices: LoadDevice[] = [];
let isClosing = false;
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

/** Maximum number of streams opened at once, the first time. */
const opensMax = 200;
const openWithinMs = 120_000;

type ConnectQuestion = Extract<Question, { kind: "connect" }>;
let away = 0;
let onReturned: (() => void) | undefined;

/**
 * Opens a stream, and with `isReturning` a new stream after each end; calls back at the first
 * welcome.
 */
function open(index: number, question: ConnectQuestion, onWelcome: () => void): void {
  const { urls, slots, beatMs, isHolding } = question;
  const held = new Map<string, string>();
  let isWelcomed = false;
  let failures = 0;
  const dial = () => {
    devices[index] = new LoadDevice(urls[index % urls.length]!, question.devices[index]!, {
      ...{ slots, beatMs, isHolding, held },
      listener: {
        welcomed() {
          failures = 0;
          if (isWelcomed) {
            away--;
            onReturned?.();
          } else {
            isWelcomed = true;
            onWelcome();
          }
        },
        assigned: (runId, dueAt, at) =>
          measured.frames.push({ runId, dueAt, at: performance.timeOrigin + at }),
        completed: (runId) => completedAt.set(runId, performance.now()),
        acknowledged(runId, at) {
          measured.acks.push(at - completedAt.get(runId)!);
          completedAt.delete(runId);
          acknowledged++;
          onAcknowledged?.();
        },
        beaten: (ms) => measured.beats.push(ms),
        ended() {
          measured.ended++;
          if (!question.isReturning || isClosing) return;
          if (failures === 0) away++;
          setTimeout(dial, backoffMs(failures, defaultTiming, Math.random));
          failures++;
        },
      },
    });
  };
  dial();
}

async function connectAll(question: ConnectQuestion): Promise<void> {
  const count = question.devices.length;
  let next = devices.length;
  const last = next + count;
  let welcomed = 0;
  await new Promise<void>((resolve, reject) => {
    const late = setTimeout(
      () => reject(new Error(`${welcomed} of ${count} devices were welcomed`)),
      openWithinMs,
    );
    const openNext = () => {
      if (next >= last) return;
      open(next++, question, () => {
        if (++welcomed < count) return openNext();
        clearTimeout(late);
        resolve();
      });
    };
    for (let opening = 0; opening < opensMax; opening++) openNext();
  });
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
    case "returned":
      await new Promise<void>((resolve, reject) => {
        const late = setTimeout(
          () => reject(new Error(`${away} devices did not come back`)),
          question.withinMs,
        );
        onReturned = () => {
          if (away > 0) return;
          clearTimeout(late);
          onReturned = undefined;
          resolve();
        };
      });
      return now();
    case "release":
      for (const device of devices) device.release();
      return undefined;
    case "close":
      isClosing = true;
      for (const device of devices) device.close();
      return undefined;
  }
});
