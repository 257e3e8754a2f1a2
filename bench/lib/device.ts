/**
 * A device of the load: a gRPC stream on its own bare HTTP/2 connection. The device accepts and
 * completes every assignment, at once or on request. It does only the minimum of the protocol, so
 * that the load costs little in comparison with the server.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  type Assignment,
  ConnectRequestSchema,
  ConnectResponseSchema,
  HeldAttemptState,
  HeldVerdict,
  Os,
  Outcome,
} from "#gen/pinion/v1/device_pb.js";
import { FrameReader, framed } from "../../src/server/device/stream/grpc-frames.ts";

export type DeviceListener = {
  welcomed?(): void;
  /**
   * `dueAt` in milliseconds of the wall clock; 0 for a turn. `at`: the time of the arrival, by the
   * monotonic clock in milliseconds, as in the calls below.
   */
  assigned?(workId: string, dueAt: number, at: number): void;
  completed?(workId: string): void;
  acknowledged?(workId: string, at: number): void;
  beaten?(ms: number): void;
  ended?(): void;
};

const messageBytesMax = 8 * 1024 * 1024;
const output = "done";

/**
 * Arrived messages of all devices of the process, in their order. Devices are machines of their
 * own: none reads later because another one decodes, answers and completes. So an arrival is noted
 * at once, and its message is handled in a later turn of the event loop, a few in each turn.
 */
const arrived: (() => void)[] = [];
const handledPerTurn = 8;

function handleLater(handle: () => void): void {
  if (arrived.push(handle) === 1) setImmediate(handleSome);
}

function handleSome(): void {
  for (const handle of arrived.splice(0, handledPerTurn)) handle();
  if (arrived.length > 0) setImmediate(handleSome);
}

export class LoadDevice {
  readonly #session: ClientHttp2Session;
  readonly #stream: ClientHttp2Stream;
  readonly #listener: DeviceListener;
  readonly #frames = new FrameReader(messageBytesMax);
  /** Attempts by token, not acknowledged yet, with their runs. */
  readonly #held: Map<string, string>;
  readonly #isHolding: () => boolean;
  #queue: Buffer[] = [];
  #beat = 0n;
  #beatAt = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    url: string,
    device: { installId: string; token: string },
    options: {
      slots: number;
      listener: DeviceListener;
      beatMs?: number | undefined;
      /** Keeps accepted runs until `release`. */
      isHolding?: boolean | (() => boolean) | undefined;
      /** Runs held in an earlier session, which the device resumes. */
      held?: Map<string, string>;
    },
  ) {
    this.#listener = options.listener;
    const { isHolding = false } = options;
    this.#isHolding = typeof isHolding === "boolean" ? () => isHolding : isHolding;
    this.#held = options.held ?? new Map();
    this.#session = connect(url);
    const end = () => {
      clearTimeout(this.#timer);
      this.#listener.ended?.();
    };
    this.#session.on("error", () => {});
    this.#stream = this.#session.request({
      ":method": "POST",
      ":path": "/pinion.v1.DeviceService/Connect",
      "content-type": "application/grpc",
      te: "trailers",
      authorization: `Bearer ${device.token}`,
    });
    this.#stream.on("error", () => {});
    this.#stream.on("close", end);
    this.#stream.on("data", (chunk: Buffer) => {
      const at = performance.now();
      handleLater(() => {
        this.#frames.push(chunk);
        for (let bytes = this.#frames.next(); bytes; bytes = this.#frames.next()) this.#receive(bytes, at);
      });
    });
    this.#send({
      case: "hello",
      value: {
        installId: device.installId,
        os: Os.LINUX,
        appVersion: "bench",
        maxConcurrency: options.slots,
        agentKinds: ["bench"],
        held: [...this.#held].map(([attemptToken, workId]) => ({
          attemptToken,
          workId,
          state: HeldAttemptState.RUNNING,
        })),
      },
    });
    if (options.beatMs) this.#beatLater(options.beatMs * Math.random(), options.beatMs);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#session.destroy();
  }

  #beatLater(ms: number, everyMs: number): void {
    this.#timer = setTimeout(() => {
      this.#beat += 1n;
      this.#beatAt = performance.now();
      const attempts = [...this.#held].map(([attemptToken, workId]) => ({ attemptToken, workId }));
      this.#send({ case: "heartbeat", value: { sequence: this.#beat, attempts } });
      this.#beatLater(everyMs, everyMs);
    }, ms);
  }

  #receive(bytes: Buffer, at: number): void {
    const { message } = fromBinary(ConnectResponseSchema, bytes);
    switch (message.case) {
      case "welcome":
        for (const { attemptToken, verdict } of message.value.verdicts) {
          if (verdict !== HeldVerdict.CONTINUE) this.#held.delete(attemptToken);
        }
        this.#listener.welcomed?.();
        break;
      case "assignment":
        this.#work(message.value, at);
        break;
      case "completionAck":
        this.#held.delete(message.value.attemptToken);
        this.#listener.acknowledged?.(message.value.workId, at);
        break;
      case "heartbeatAck":
        this.#listener.beaten?.(at - this.#beatAt);
        break;
    }
  }

  #work({ workId, attemptToken, event }: Assignment, at: number): void {
    this.#listener.assigned?.(workId, event?.firedAt ? timestampDate(event.firedAt).getTime() : 0, at);
    this.#held.set(attemptToken, workId);
    this.#send({ case: "accept", value: { workId, attemptToken } });
    if (!this.#isHolding()) this.#complete(workId, attemptToken);
  }

  /** Completes the held runs. */
  release(): void {
    for (const [attemptToken, workId] of this.#held) this.#complete(workId, attemptToken);
  }

  #complete(workId: string, attemptToken: string): void {
    this.#send({
      case: "complete",
      value: { workId, attemptToken, outcome: Outcome.COMPLETED, output, exitCode: 0 },
    });
    this.#listener.completed?.(workId);
  }

  #send(message: NonNullable<MessageInitShape<typeof ConnectRequestSchema>["message"]>): void {
    const request = create(ConnectRequestSchema, { message });
    if (this.#queue.push(framed(toBinary(ConnectRequestSchema, request))) > 1) return;
    process.nextTick(() => {
      const frames = this.#queue;
      this.#queue = [];
      if (!this.#stream.destroyed) this.#stream.write(Buffer.concat(frames));
    });
  }
}
