import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { durationFromMs, timestampNow } from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import * as grpc from "@grpc/grpc-js";
import {
  type Assignment,
  type CompleteRunRequest,
  type Completion,
  CompletionVerdict,
  type ConnectRequest,
  type ConnectResponse,
  DeviceService,
  type EnrollRequest,
  type HeldAttempt,
  HeldAttemptState,
  HeldVerdict,
  type Hello,
  type Welcome,
  WelcomeSchema,
} from "#gen/pinion/v1/device_pb.js";
import { PeerSession, type SessionHost } from "./peer-session.ts";
import { Queue } from "./queue.ts";

export interface PeerOptions {
  port?: number;
  heartbeatMs?: number;
  ttlMs?: number;
  limits?: { messageBytesMax?: bigint; completionOutputBytesMax?: bigint; outputChunkBytesMax?: bigint };
  /** The capabilities in the welcome. */
  capabilities?: string[];
  /** The time limit of a script's wait for a message of a session, in ms; real agents are slow. */
  patienceMs?: number;
}

/**
 * A scripted server that really speaks the device protocol (grpc-js and the generated code). By
 * default the server follows the protocol: welcomes, answers heartbeats, stores completions exactly
 * once and gives sensible verdicts. Switches make the server misbehave. Every message is checked
 * against the protocol's rules; broken rules are recorded in `violations`.
 */
export class Peer implements SessionHost {
  readonly #server: grpc.Server;
  readonly #options: PeerOptions;
  readonly #arrivals: Queue<PeerSession> = new Queue("a session");
  readonly sessions: PeerSession[] = [];
  readonly violations: string[] = [];
  /** Completions by attempt token, as a server would have stored them, and how often each came. */
  readonly stored = new Map<string, { completion: Completion; times: number }>();
  readonly assigned = new Map<string, Assignment>();
  readonly unaryCompletions: Completion[] = [];
  readonly enrollments: EnrollRequest[] = [];
  readonly tokensSeen: string[] = [];
  /** Connect calls, including refused calls. */
  dials = 0;
  port = 0;
  /** Off: a hello is not answered; the script calls `welcome`. */
  welcomes = true;
  /** Off: heartbeats are not answered. */
  answersHeartbeats = true;
  /** Off: completions are stored, their acknowledgements lost. */
  acknowledges = true;
  /** The database named in the welcome. */
  incarnation:
    | { systemIdentifier: string; timeline: number; position: string; safePosition?: string }
    | undefined;
  /** Off: the unary call's answer names no database, as an older server's. */
  namesUnary = true;
  /** A verdict other than the sensible verdict. */
  completionVerdict: CompletionVerdict | undefined;
  heldVerdict: ((held: HeldAttempt) => HeldVerdict) | undefined;
  /** Answers every Connect with this refusal. */
  refusal: { code: grpc.status; details: string } | undefined;
  unaryRefusal: { code: grpc.status; details: string } | undefined;
  enrollRefusal: { code: grpc.status; details: string } | undefined;

  private constructor(options: PeerOptions) {
    this.#options = options;
    this.#server = new grpc.Server({ "grpc.max_receive_message_length": 8 * 1024 * 1024 });
    this.#server.addService(
      {
        Connect: definitionOf(DeviceService.method.connect),
        CompleteRun: definitionOf(DeviceService.method.completeRun),
        Enroll: definitionOf(DeviceService.method.enroll),
      },
      {
        Connect: (call: grpc.ServerDuplexStream<ConnectRequest, ConnectResponse>) => this.#connect(call),
        CompleteRun: (
          call: grpc.ServerUnaryCall<CompleteRunRequest, unknown>,
          done: grpc.sendUnaryData<unknown>,
        ) => this.#completeRun(call, done),
        Enroll: (call: grpc.ServerUnaryCall<EnrollRequest, unknown>, done: grpc.sendUnaryData<unknown>) => {
          this.enrollments.push(call.request);
          if (this.enrollRefusal !== undefined) done(this.enrollRefusal);
          else
            done(
              null,
              create(DeviceService.method.enroll.output, {
                deviceId: "device-1",
                orgId: "local",
                token: "pin_dev_new",
              }),
            );
        },
      },
    );
  }

  static async start(options: PeerOptions = {}): Promise<Peer> {
    const peer = new Peer(options);
    peer.port = await new Promise<number>((resolve, reject) => {
      peer.#server.bindAsync(
        `127.0.0.1:${options.port ?? 0}`,
        grpc.ServerCredentials.createInsecure(),
        (error, port) => (error === null ? resolve(port) : reject(error)),
      );
    });
    return peer;
  }

  get patienceMs(): number | undefined {
    return this.#options.patienceMs;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The next session whose hello has arrived. */
  session(): Promise<PeerSession> {
    return this.#arrivals.take(
      () => true,
      () => `${this.dials} dials`,
    );
  }

  close(): Promise<void> {
    this.#server.forceShutdown();
    return Promise.resolve();
  }

  welcomeFor(hello: Hello): Welcome {
    return create(WelcomeSchema, {
      ...(this.incarnation ? { incarnation: this.incarnation } : {}),
      deviceId: "0190b6a0-0000-7000-8000-000000000001",
      sessionEpoch: BigInt(this.sessions.length),
      replicaId: "replica-1",
      serverTime: timestampNow(),
      timers: {
        heartbeatInterval: durationFromMs(this.#options.heartbeatMs ?? 100),
        ttl: durationFromMs(this.#options.ttlMs ?? 2_000),
        acceptDeadline: durationFromMs(10_000),
      },
      limits: {
        messageBytesMax: this.#options.limits?.messageBytesMax ?? 4_194_304n,
        completionOutputBytesMax: this.#options.limits?.completionOutputBytesMax ?? 1_048_576n,
        outputChunkBytesMax: this.#options.limits?.outputChunkBytesMax ?? 32_768n,
      },
      capabilities: this.#options.capabilities ?? [],
      verdicts: hello.held.map((held) => ({
        workId: held.workId,
        attemptToken: held.attemptToken,
        verdict: this.heldVerdict?.(held) ?? this.#verdictFor(held),
      })),
    });
  }

  store(completion: Completion): CompletionVerdict {
    if (this.completionVerdict !== undefined) return this.completionVerdict;
    const known = this.stored.get(completion.attemptToken);
    this.stored.set(completion.attemptToken, { completion, times: (known?.times ?? 0) + 1 });
    return known === undefined ? CompletionVerdict.STORED : CompletionVerdict.ALREADY_STORED;
  }

  check<S extends DescMessage>(schema: S, message: MessageShape<S>): void {
    const result = validator.validate(schema, message);
    if (result.kind !== "valid") this.violations.push(String(result.error));
  }

  #verdictFor(held: HeldAttempt): HeldVerdict {
    if (this.stored.has(held.attemptToken)) return HeldVerdict.ALREADY_STORED;
    if (held.state === HeldAttemptState.FINISHED) return HeldVerdict.SEND_RESULT;
    return HeldVerdict.CONTINUE;
  }

  #connect(call: grpc.ServerDuplexStream<ConnectRequest, ConnectResponse>): void {
    this.dials += 1;
    this.tokensSeen.push(String(call.metadata.get("authorization")[0] ?? ""));
    // A cancelled call is how devices leave.
    call.on("error", () => {});
    if (this.refusal !== undefined) {
      call.emit("error", this.refusal);
      return;
    }
    const session = new PeerSession(this, call, () => {
      this.sessions.push(session);
      this.#arrivals.put(session);
    });
  }

  #completeRun(
    call: grpc.ServerUnaryCall<CompleteRunRequest, unknown>,
    done: grpc.sendUnaryData<unknown>,
  ): void {
    const { completion } = call.request;
    if (this.unaryRefusal !== undefined || completion === undefined) {
      done(this.unaryRefusal ?? { code: grpc.status.INVALID_ARGUMENT, details: "completion" });
      return;
    }
    this.unaryCompletions.push(completion);
    const verdict = this.store(completion);
    const named = this.namesUnary && this.incarnation ? { incarnation: this.incarnation } : {};
    done(null, create(DeviceService.method.completeRun.output, { verdict, ...named }));
  }
}

const validator = createValidator();

function definitionOf<M extends DescMethod>(
  method: M,
): grpc.MethodDefinition<MessageShape<M["input"]>, MessageShape<M["output"]>> {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === "bidi_streaming" || method.methodKind === "client_streaming",
    responseStream: method.methodKind === "bidi_streaming" || method.methodKind === "server_streaming",
    requestSerialize: (message) => Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes) as MessageShape<M["input"]>,
    responseSerialize: (message) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes) as MessageShape<M["output"]>,
  };
}
