import { randomUUID } from "node:crypto";
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs, timestampNow } from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import * as grpc from "@grpc/grpc-js";
import {
  type Assignment,
  AssignmentKind,
  AssignmentSchema,
  type CompleteRunRequest,
  type Completion,
  CompletionVerdict,
  type ConnectRequest,
  ConnectRequestSchema,
  type ConnectResponse,
  ConnectResponseSchema,
  DeviceService,
  DrainReason,
  type EnrollRequest,
  type HeldAttempt,
  HeldAttemptState,
  HeldVerdict,
  type Hello,
  type TurnAssignmentSchema,
  type Welcome,
  WelcomeSchema,
} from "#gen/pinion/v1/device_pb.js";
import { Notification, RunSource } from "#gen/pinion/v1/run_pb.js";

/** The time limit of a script's wait for a message, in ms. */
const PATIENCE_MS = 15_000;

type Case = NonNullable<ConnectRequest["message"]["case"]>;
type ValueOf<C extends Case> = Extract<ConnectRequest["message"], { case: C }>["value"];

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

export interface AssignmentScript {
  workId?: string;
  attemptToken?: string;
  attempt?: number;
  agentKind?: string;
  timeoutMs?: number;
  prompt?: string;
  notification?: Notification;
  /** Makes the assignment a turn; null: of kind TURN, without the field `turn`. */
  turn?: MessageInitShape<typeof TurnAssignmentSchema> | null;
  /** Any other fields. */
  more?: MessageInitShape<typeof AssignmentSchema>;
}

/**
 * A scripted server that really speaks the device protocol (grpc-js and the generated code). By
 * default the server follows the protocol: welcomes, answers heartbeats, stores completions exactly
 * once and gives sensible verdicts. Switches make the server misbehave. Every message is checked
 * against the protocol's rules; broken rules are recorded in `violations`.
 */
export class Peer {
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
    done(null, create(DeviceService.method.completeRun.output, { verdict }));
  }
}

/** One stream of a device, from the server's side. */
export class PeerSession {
  readonly #peer: Peer;
  readonly #call: grpc.ServerDuplexStream<ConnectRequest, ConnectResponse>;
  readonly #inbox: Queue<ConnectRequest>;
  /** All received messages, in order. */
  readonly received: ConnectRequest[] = [];
  readonly heartbeatsAt: number[] = [];
  /** Resolves when the stream has ended, from either side. */
  readonly closed: Promise<void>;
  hello!: Hello;

  constructor(
    peer: Peer,
    call: grpc.ServerDuplexStream<ConnectRequest, ConnectResponse>,
    onHello: () => void,
  ) {
    this.#peer = peer;
    this.#call = call;
    this.#inbox = new Queue("a message", peer.patienceMs);
    this.closed = new Promise((resolve) => {
      call.on("cancelled", () => resolve());
      call.on("end", () => {
        call.end();
        resolve();
      });
      call.on("close", () => resolve());
    });
    call.on("data", (message: ConnectRequest) => this.#received(message, onHello));
  }

  get isClosed(): boolean {
    return this.#call.cancelled || this.#call.writableEnded;
  }

  /** The next message of this kind not taken yet. */
  async next<C extends Case>(
    kind: C,
    accept: (value: ValueOf<C>) => boolean = () => true,
  ): Promise<ValueOf<C>> {
    const message = await this.#inbox.take(
      ({ message }) => message.case === kind && accept(message.value as ValueOf<C>),
      () => `waited for ${kind}; got ${this.received.map(({ message }) => message.case).join(", ")}`,
    );
    return message.message.value as ValueOf<C>;
  }

  all<C extends Case>(kind: C): ValueOf<C>[] {
    return this.received.flatMap(({ message }) =>
      message.case === kind ? [message.value as ValueOf<C>] : [],
    );
  }

  send(message: MessageInitShape<typeof ConnectResponseSchema>["message"] & object): void {
    this.#call.write(create(ConnectResponseSchema, { message }));
  }

  welcome(): void {
    this.send({ case: "welcome", value: this.#peer.welcomeFor(this.hello) });
  }

  /** Assigns a run; omitted fields get defaults. */
  assign(script: AssignmentScript = {}): Assignment {
    const workId = script.workId ?? randomUUID();
    const { turn } = script;
    const fields: MessageInitShape<typeof AssignmentSchema> = {
      workId,
      attemptToken: script.attemptToken ?? randomUUID(),
      attempt: script.attempt ?? 1,
      kind: turn === undefined ? AssignmentKind.WATCHER_RUN : AssignmentKind.TURN,
      agentKind: script.agentKind ?? "",
      timeout: durationFromMs(script.timeoutMs ?? 60_000),
      notification: script.notification ?? Notification.NONE,
      agent: { id: "pinion-default", name: "Pinion", version: 1, settings: { identity: "You are terse." } },
      ...(turn === undefined ? aboutRun(workId, script.prompt) : {}),
      ...(turn ? { turn, context: { deviceId: "d", conversationId: turn.conversationId ?? "" } } : {}),
    };
    const assignment = create(AssignmentSchema, Object.assign(fields, script.more));
    this.#peer.assigned.set(assignment.attemptToken, assignment);
    this.send({ case: "assignment", value: assignment });
    return assignment;
  }

  cancel(attempt: { workId: string; attemptToken: string }, reason = "asked to"): void {
    this.send({
      case: "cancel",
      value: { workId: attempt.workId, attemptToken: attempt.attemptToken, reason },
    });
  }

  acknowledge(
    attempt: { workId: string; attemptToken: string },
    verdict: CompletionVerdict,
    message = "",
  ): void {
    this.send({
      case: "completionAck",
      value: {
        ...{ workId: attempt.workId, attemptToken: attempt.attemptToken, verdict, message },
        ...(this.#peer.incarnation ? { incarnation: this.#peer.incarnation } : {}),
      },
    });
  }

  answer(
    attempt: { workId: string; attemptToken: string },
    questionId: string,
    given: { optionId?: string; text?: string; isDefault?: boolean },
  ): void {
    const { workId, attemptToken } = attempt;
    this.send({ case: "answer", value: { workId, attemptToken, questionId, ...given } });
  }

  drain(reason: DrainReason = DrainReason.SHUTDOWN, reconnectAfterMs = 50): void {
    this.send({ case: "drain", value: { reason, reconnectAfter: durationFromMs(reconnectAfterMs) } });
  }

  /** Ends the stream with a status. */
  fail(code: grpc.status, details: string): void {
    this.#call.emit("error", { code, details });
  }

  /** Ends the stream without an error. */
  end(): void {
    this.#call.end();
  }

  /** Stops reading: the device's writes pile up. */
  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }

  #received(message: ConnectRequest, onHello: () => void): void {
    this.#peer.check(ConnectRequestSchema, message);
    this.received.push(message);
    const { message: body } = message;
    if (body.case === "hello") {
      this.hello = body.value;
      onHello();
      if (this.#peer.welcomes) this.welcome();
    } else if (body.case === "heartbeat") {
      this.heartbeatsAt.push(performance.now());
      if (this.#peer.answersHeartbeats) {
        this.send({
          case: "heartbeatAck",
          value: { sequence: body.value.sequence, serverTime: timestampNow() },
        });
      }
    } else if (body.case === "complete") {
      const verdict = this.#peer.store(body.value);
      if (this.#peer.acknowledges) this.acknowledge(body.value, verdict);
    }
    this.#inbox.put(message);
  }
}

/** The fields of an assignment about a watcher's run. */
function aboutRun(workId: string, prompt = "say hello") {
  return {
    watcher: { id: randomUUID(), slug: "daily", name: "Daily", version: 1, prompt },
    event: {
      firedAt: timestampNow(),
      source: RunSource.MANUAL,
      windowStart: timestampFromMs(Date.UTC(2026, 0, 1)),
      windowEnd: timestampFromMs(Date.UTC(2026, 0, 2)),
    },
    context: { deviceId: "d", conversationId: `pinion-default_watcher_daily_run_${workId}` },
  };
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

/** A queue of items, and of waiters for matching items. */
class Queue<T> {
  readonly #name: string;
  readonly #patienceMs: number;
  readonly #items: T[] = [];
  readonly #takers: { accept: (item: T) => boolean; resolve: (item: T) => void }[] = [];

  constructor(name: string, patienceMs = PATIENCE_MS) {
    this.#name = name;
    this.#patienceMs = patienceMs;
  }

  put(item: T): void {
    const index = this.#takers.findIndex((taker) => taker.accept(item));
    if (index < 0) this.#items.push(item);
    else this.#takers.splice(index, 1)[0]?.resolve(item);
  }

  take(accept: (item: T) => boolean, describe: () => string): Promise<T> {
    const index = this.#items.findIndex(accept);
    if (index >= 0) return Promise.resolve(this.#items.splice(index, 1)[0] as T);
    return new Promise((resolve, reject) => {
      const taker = {
        accept,
        resolve: (item: T) => {
          clearTimeout(timer);
          resolve(item);
        },
      };
      const timer = setTimeout(() => {
        this.#takers.splice(this.#takers.indexOf(taker), 1);
        reject(new Error(`${this.#name} did not come within ${this.#patienceMs} ms: ${describe()}`));
      }, this.#patienceMs);
      this.#takers.push(taker);
    });
  }
}
