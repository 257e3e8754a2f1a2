import { randomUUID } from "node:crypto";
import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs, timestampNow } from "@bufbuild/protobuf/wkt";
import type * as grpc from "@grpc/grpc-js";
import {
  type Assignment,
  AssignmentKind,
  AssignmentSchema,
  type Completion,
  type CompletionVerdict,
  type ConnectRequest,
  ConnectRequestSchema,
  type ConnectResponse,
  ConnectResponseSchema,
  DrainReason,
  type Hello,
  type TurnAssignmentSchema,
  type Welcome,
} from "#gen/pinion/v1/device_pb.js";
import { Notification, RunSource } from "#gen/pinion/v1/run_pb.js";
import { Queue } from "./queue.ts";

type Case = NonNullable<ConnectRequest["message"]["case"]>;
type ValueOf<C extends Case> = Extract<ConnectRequest["message"], { case: C }>["value"];

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

/** What a session asks of its server. */
export interface SessionHost {
  readonly patienceMs: number | undefined;
  /** The assignments of all sessions, by attempt token. */
  readonly assigned: Map<string, Assignment>;
  /** Switches of the server, read at each message. */
  readonly welcomes: boolean;
  readonly answersHeartbeats: boolean;
  readonly acknowledges: boolean;
  readonly incarnation:
    | { systemIdentifier: string; timeline: number; position: string; safePosition?: string }
    | undefined;
  welcomeFor(hello: Hello): Welcome;
  store(completion: Completion): CompletionVerdict;
  check<S extends DescMessage>(schema: S, message: MessageShape<S>): void;
}

/** One stream of a device, from the server's side. */
export class PeerSession {
  readonly #peer: SessionHost;
  readonly #call: grpc.ServerDuplexStream<ConnectRequest, ConnectResponse>;
  readonly #inbox: Queue<ConnectRequest>;
  /** All received messages, in order. */
  readonly received: ConnectRequest[] = [];
  readonly heartbeatsAt: number[] = [];
  /** Resolves when the stream has ended, from either side. */
  readonly closed: Promise<void>;
  hello!: Hello;

  constructor(
    peer: SessionHost,
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
