/**
 * Access and bounds: the guard, the streams ended with their tokens, the limits of calls and the
 * quotas of orgs.
 */
import { createGuard, type Guard } from "../server/access/guard.ts";
import { createLimits, type Limits } from "../server/access/limits.ts";
import { createStreams, type Streams } from "../server/access/streams.ts";
import { createQuotas, type Quotas } from "../store/people/orgs/quotas.ts";
import type { Foundation } from "./foundation.ts";
import type { Storage } from "./storage.ts";

export type Access = { guard: Guard; streams: Streams; limits: Limits; quotas: Quotas };

export function buildAccess({ config, log, opened }: Foundation, { work, looks, requests }: Storage): Access {
  const guard = createGuard({ db: requests.db, log });
  opened.defer(() => guard.close());
  return {
    guard,
    streams: createStreams({ db: work.db, looks }),
    limits: createLimits(config.rates),
    quotas: createQuotas(config.quotas, { ahead: work.db }),
  };
}
