import type { Interceptor } from "@connectrpc/connect";
import type { Quotas } from "../../../store/people/orgs/quotas.ts";
import type { Db } from "../../../store/pg/database.ts";
import type { Logger } from "../../../telemetry/log.ts";
import type { Tracer } from "../../../telemetry/tracing.ts";
import type { Guard } from "../guard.ts";
import type { Limits } from "../limits.ts";
import { requestIdInterceptor } from "../peer.ts";
import type { Streams } from "../streams.ts";
import { authInterceptor } from "./auth.ts";
import { errorInterceptor } from "./errors.ts";
import { attemptInterceptor, requestInterceptor } from "./limit.ts";
import { logInterceptor } from "./log.ts";
import { ownershipInterceptor } from "./ownership.ts";
import { quotaInterceptor, streamInterceptor } from "./quota.ts";
import { traceInterceptor } from "./trace.ts";
import { validateInterceptor } from "./validate.ts";

/**
 * The interceptors of every call, outermost first. The log sees the final status, and a caller
 * without permission does not learn the rules of requests.
 */
export function interceptorChain(options: {
  guard: Guard;
  log: Logger;
  streams: Streams;
  /** For requests: confined to the caller's org. */
  db: Db;
  /** Events of an org were written. */
  onEvents?: (orgId: string) => void;
  onCall?: (rpc: string, code: string) => void;
  tracer?: Tracer | undefined;
  /** The limits of callers; undefined: no limits. */
  bounds?: { limits: Limits; streamsPerOrg: number; quotas: Quotas };
}): Interceptor[] {
  const { guard, bounds, db } = options;
  return [
    requestIdInterceptor(),
    logInterceptor(options),
    ...(options.tracer ? [traceInterceptor({ tracer: options.tracer })] : []),
    errorInterceptor(options),
    ...(bounds ? [attemptInterceptor({ guard, ...bounds })] : []),
    authInterceptor(options),
    ...(bounds
      ? [requestInterceptor(bounds), streamInterceptor(bounds), quotaInterceptor({ ...bounds, db })]
      : []),
    validateInterceptor(),
    ownershipInterceptor(options),
  ];
}
