import type { Interceptor } from "@connectrpc/connect";
import type { Logger } from "../../log.ts";
import type { Tracer } from "../../tracing.ts";
import type { Guard } from "../guard.ts";
import { authInterceptor } from "./auth.ts";
import { errorInterceptor } from "./errors.ts";
import { logInterceptor } from "./log.ts";
import { traceInterceptor } from "./trace.ts";
import { validateInterceptor } from "./validate.ts";

/**
 * What every call goes through, outermost first. The log sees the status; who may not call learns nothing of the rules
 * that a request has to keep.
 */
export function interceptorChain(options: {
  guard: Guard;
  log: Logger;
  recheckMs?: number;
  onCall?: (rpc: string, code: string) => void;
  tracer?: Tracer | undefined;
}): Interceptor[] {
  return [
    logInterceptor(options),
    ...(options.tracer ? [traceInterceptor({ tracer: options.tracer })] : []),
    errorInterceptor(options),
    authInterceptor(options),
    validateInterceptor(),
  ];
}
