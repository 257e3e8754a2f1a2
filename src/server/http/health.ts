/** `grpc.health.v1`: whether the replica accepts work. Needs no token. */

import type { DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.js";

/** The answer to health checks, the same for the replica and for each of its services. */
export class HealthState {
  #isOpen = false;
  #hasDatabase = true;
  readonly #watchers = new Set<() => void>();

  /** The replica accepts work: it is open and reaches its database. */
  get isServing(): boolean {
    return this.#isOpen && this.#hasDatabase;
  }

  /** Has started, and does not stop. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  setServing(isOpen: boolean): void {
    this.#change(() => {
      this.#isOpen = isOpen;
    });
  }

  setDatabase(hasDatabase: boolean): void {
    this.#change(() => {
      this.#hasDatabase = hasDatabase;
    });
  }

  #change(change: () => void): void {
    const before = this.isServing;
    change();
    if (this.isServing !== before) for (const wake of [...this.#watchers]) wake();
  }

  /** Resolves at the next change, or when the signal aborts. */
  change(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        this.#watchers.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#watchers.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}

/**
 * Registers Check, Watch and List. The empty name means the replica; services have their own names.
 */
export function registerHealth(
  router: ConnectRouter,
  options: { state: HealthState; services: readonly DescService[] },
): void {
  const { state } = options;
  const known = new Set(["", ...[...options.services, Health].map((service) => service.typeName)]);
  const statusOf = (service: string) => {
    if (!known.has(service)) return Status.SERVICE_UNKNOWN;
    return state.isServing ? Status.SERVING : Status.NOT_SERVING;
  };
  router.service(Health, {
    check(request) {
      const status = statusOf(request.service);
      if (status === Status.SERVICE_UNKNOWN) {
        throw new ConnectError(`the service ${request.service} is unknown`, Code.NotFound);
      }
      return { status };
    },
    async *watch(request, context) {
      let told: Status | undefined;
      while (!context.signal.aborted) {
        // Subscribes before the status is read, so that a change during the send is not missed.
        const changed = state.change(context.signal);
        const status = statusOf(request.service);
        if (status !== told) yield { status };
        told = status;
        await changed;
      }
    },
    list() {
      return { statuses: Object.fromEntries([...known].map((name) => [name, { status: statusOf(name) }])) };
    },
  });
}
