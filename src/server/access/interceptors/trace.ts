import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { newTraceId, parseTraceparent, type Tracer } from "../../../telemetry/tracing.ts";
import { findPrincipal } from "../principal.ts";
import { nameOf } from "../rules.ts";

/**
 * A server span for each unary call of an authenticated caller, below the span of the call's
 * `traceparent`. A stream lives for an hour and has no span; its messages belong to the traces of
 * runs. Calls without a valid token have no span, so that outsiders cannot fill the collector.
 */
export function traceInterceptor(options: { tracer: Tracer }): Interceptor {
  const { tracer } = options;
  return (next) => async (request) => {
    if (request.stream) return next(request);
    const parent = parseTraceparent(request.header.get("traceparent"));
    const traceId = parent?.traceId ?? newTraceId();
    if (!(parent ? parent.isSampled : tracer.isSampled(traceId))) return next(request);
    const [startMs, startedAt] = [Date.now(), performance.now()];
    let code: string | undefined;
    try {
      return await next(request);
    } catch (error) {
      code = Code[ConnectError.from(error).code];
      throw error;
    } finally {
      const principal = findPrincipal(request.contextValues);
      if (principal) {
        tracer.record({
          name: nameOf(request.method),
          kind: "server",
          traceId,
          parentSpanId: parent?.spanId,
          startMs,
          endMs: startMs + performance.now() - startedAt,
          attributes: {
            "rpc.system": "connect_rpc",
            "rpc.service": request.service.typeName,
            "rpc.method": request.method.name,
            "pinion.org_id": principal.orgId,
          },
          error: code,
        });
      }
    }
  };
}
