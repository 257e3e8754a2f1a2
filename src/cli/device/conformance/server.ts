import { randomUUID } from "node:crypto";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampNow } from "@bufbuild/protobuf/wkt";
import { type Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import {
  type Assignment,
  AssignmentKind,
  AssignmentSchema,
  type Completion,
  CompletionVerdict,
  type ConnectRequest,
  DeviceService,
  type HeldAttempt,
  HeldAttemptState,
  HeldVerdict,
  type Hello,
  type Welcome,
  WelcomeSchema,
} from "#gen/pinion/v1/device_pb.js";
import { RunSource } from "#gen/pinion/v1/run_pb.js";
import { ScriptedSession } from "./session.ts";
import { Wrong } from "./verdict.ts";

/** The server's behaviour; cases change the script at any time. */
export type Script = {
  heartbeatMs: number;
  ttlMs: number;
  acceptDeadlineMs: number;
  outputChunkBytesMax: number;
  completionOutputBytesMax: number;
  /** False: the server does not answer a hello. */
  welcomes: boolean;
  answersHeartbeats: boolean;
  /** False: completions are stored and their acknowledgements lost. */
  acknowledges: boolean;
  /** Replaces the regular verdict. */
  completionVerdict: CompletionVerdict | undefined;
  heldVerdict: ((held: HeldAttempt) => HeldVerdict) | undefined;
  /** Ends every stream at once with the code. */
  refusal: Code | undefined;
  /** Adds unknown fields to the server's messages. */
  hasUnknownFields: boolean;
};

const messageBytesMax = 4 * 1024 * 1024;
const unknownField = [{ no: 9_999, wireType: 2, data: new Uint8Array([3, 1, 2, 3]) }];

/**
 * A server for the device protocol over h2c with a scripted behaviour. By default: welcomes,
 * answers heartbeats, stores each completion once. Checks every message of the daemon; violations
 * go to `broken`.
 */
export class ScriptedServer {
  readonly script: Script = {
    heartbeatMs: 400,
    ttlMs: 8_000,
    acceptDeadlineMs: 10_000,
    outputChunkBytesMax: 32_768,
    completionOutputBytesMax: 1_048_576,
    welcomes: true,
    answersHeartbeats: true,
    acknowledges: true,
    completionVerdict: undefined,
    heldVerdict: undefined,
    refusal: undefined,
    hasUnknownFields: false,
  };
  /** Times of the opened streams by the monotonic clock in ms, including refused streams. */
  readonly dials: number[] = [];
  readonly tokens: string[] = [];
  readonly broken: string[] = [];
  readonly stored = new Map<string, Completion>();
  readonly patienceMs: number;
  readonly #server: http2.Http2Server;
  readonly #connections = new Set<http2.ServerHttp2Session>();
  readonly #arrived: ScriptedSession[] = [];
  #wake: (() => void) | undefined;
  #epoch = 0n;

  private constructor(patienceMs: number) {
    this.patienceMs = patienceMs;
    const adapter = connectNodeAdapter({
      readMaxBytes: messageBytesMax,
      routes: (router) => {
        const connect = this.#connect.bind(this);
        router.service(DeviceService, {
          connect: (requests, context) => connect(requests, context),
          completeRun: ({ completion }) => ({ verdict: this.store(completion!) }),
        });
      },
    });
    this.#server = http2.createServer(adapter);
    this.#server.on("session", (connection) => {
      this.#connections.add(connection);
      connection.on("close", () => this.#connections.delete(connection));
      connection.on("error", () => {});
    });
  }

  static async start(patienceMs: number): Promise<ScriptedServer> {
    const server = new ScriptedServer(patienceMs);
    await new Promise<void>((resolve, reject) => {
      server.#server.once("error", reject);
      server.#server.listen(0, "127.0.0.1", resolve);
    });
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The next stream after its hello. */
  async session(what = "a stream with a hello", withinMs = this.patienceMs): Promise<ScriptedSession> {
    const deadline = performance.now() + withinMs;
    for (;;) {
      const session = this.#arrived.shift();
      if (session) return session;
      const leftMs = deadline - performance.now();
      if (leftMs <= 0)
        throw new Wrong(what, `none within ${withinMs} ms, and ${this.dials.length} dials in all`);
      await new Promise<void>((resolve) => {
        // The listening server keeps the process alive; the timer of an interrupted case must not.
        const timer = setTimeout(resolve, leftMs).unref();
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async *#connect(
    requests: AsyncIterable<ConnectRequest>,
    context: { signal: AbortSignal; requestHeader: Headers },
  ) {
    this.dials.push(performance.now());
    this.tokens.push(context.requestHeader.get("authorization") ?? "");
    if (this.script.refusal !== undefined) throw new ConnectError("conformance", this.script.refusal);
    const session = new ScriptedSession(this, context.signal);
    void session.read(requests, () => {
      this.#arrived.push(session);
      this.#wake?.();
    });
    yield* session.messages();
  }

  welcomeFor(hello: Hello): Welcome {
    const { script } = this;
    this.#epoch += 1n;
    const welcome = create(WelcomeSchema, {
      deviceId: randomUUID(),
      sessionEpoch: this.#epoch,
      replicaId: "conformance",
      serverTime: timestampNow(),
      timers: {
        heartbeatInterval: durationFromMs(script.heartbeatMs),
        ttl: durationFromMs(script.ttlMs),
        acceptDeadline: durationFromMs(script.acceptDeadlineMs),
      },
      limits: {
        messageBytesMax: BigInt(messageBytesMax),
        completionOutputBytesMax: BigInt(script.completionOutputBytesMax),
        outputChunkBytesMax: BigInt(script.outputChunkBytesMax),
      },
      verdicts: hello.held.map((held) => ({
        workId: held.workId,
        attemptToken: held.attemptToken,
        verdict: script.heldVerdict?.(held) ?? this.#verdictOf(held),
      })),
    });
    return script.hasUnknownFields ? { ...welcome, $unknown: unknownField } : welcome;
  }

  #verdictOf(held: HeldAttempt): HeldVerdict {
    if (held.state === HeldAttemptState.FINISHED) return HeldVerdict.SEND_RESULT;
    return HeldVerdict.CONTINUE;
  }

  assignment(work: { prompt: string; agentKind: string; timeoutMs?: number }): Assignment {
    const workId = randomUUID();
    const now = timestampNow();
    const watcherId = randomUUID();
    const assignment = create(AssignmentSchema, {
      workId,
      attemptToken: randomUUID(),
      attempt: 1,
      kind: AssignmentKind.WATCHER_RUN,
      agentKind: work.agentKind,
      timeout: durationFromMs(work.timeoutMs ?? 120_000),
      agent: { id: "conformance", name: "Conformance", version: 1, settings: {} },
      watcher: {
        id: watcherId,
        slug: "conformance",
        name: "Conformance",
        version: 1,
        prompt: work.prompt,
      },
      event: { firedAt: now, source: RunSource.MANUAL, windowStart: now, windowEnd: now },
      context: { deviceId: "", conversationId: `conformance_watcher_${watcherId}_run_${workId}` },
    });
    return this.script.hasUnknownFields ? { ...assignment, $unknown: unknownField } : assignment;
  }

  store(completion: Completion): CompletionVerdict {
    const isKnown = this.stored.has(completion.attemptToken);
    if (!isKnown) this.stored.set(completion.attemptToken, completion);
    return (
      this.script.completionVerdict ?? (isKnown ? CompletionVerdict.ALREADY_STORED : CompletionVerdict.STORED)
    );
  }

  /** Drops every connection without a message. */
  cut(): void {
    for (const connection of this.#connections) connection.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
