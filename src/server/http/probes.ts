/**
 * The probes of load balancers and Prometheus, on the port of the rpcs and without a token:
 * `/healthz` (the process answers), `/readyz` (the replica accepts work; the JSON names the failing
 * check) and `/metrics`.
 */
import { timingSafeEqual } from "node:crypto";
import { type Loop, startLoop } from "../../scheduler/loop.ts";
import * as clock from "../../store/pg/clock.ts";
import type { Db } from "../../store/pg/database.ts";
import { readNumbers } from "../../store/pg/numbers.ts";
import type { DatabaseNumbers } from "../../telemetry/gauges.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { within } from "../../time/abort.ts";
import { secretHash } from "../../values/ids.ts";
import type { HealthState } from "./health.ts";
import { authorityOf } from "./port/authority.ts";
import { type HostCheck, refuseHost } from "./port/own-host.ts";
import type { Handler } from "./port/requests.ts";

/** Maximum milliseconds that a probe waits for the database. */
const databaseWithinMs = 2_000;
/** Milliseconds between checks of the database for clients that watch `grpc.health.v1`. */
const lookEveryMs = 2_000;
/**
 * Milliseconds for which an answer to any statement proves that the database answers. A replica
 * without work asks something every 5 s.
 */
const provenMs = 6_000;
/**
 * Numbers of the whole database are read at most once in this time, in milliseconds, however many
 * clients ask.
 */
const numbersAgeMs = 5_000;

export type ProbeOptions = {
  rpc: Handler;
  health: HealthState;
  db: Db;
  isBusUp: () => boolean;
  metrics: Metrics;
  /** The bearer token for `/metrics`; undefined: no token is needed. */
  metricsToken: string | undefined;
  check?: HostCheck;
};

/** The rpcs, and the probes beside them. */
export function withProbes(options: ProbeOptions): Handler {
  return (request, response) => {
    const path = request.url?.split("?", 1)[0];
    const answer = (status: number, type: string, text: string) => {
      response.statusCode = status;
      response.setHeader("content-type", type);
      response.setHeader("cache-control", "no-store");
      response.end(text);
    };
    switch (path) {
      case "/healthz":
        return answer(200, "text/plain; charset=utf-8", "ok\n");
      case "/readyz":
        return readiness(options).then((found) =>
          answer(found.ready ? 200 : 503, "application/json", `${JSON.stringify(found)}\n`),
        );
      case "/metrics": {
        const problem = options.check?.(authorityOf(request));
        if (problem !== undefined) return refuseHost(response, problem);
        if (!mayScrape(options.metricsToken, request.headers.authorization)) {
          response.setHeader("www-authenticate", "Bearer");
          return answer(401, "text/plain; charset=utf-8", "authorization: Bearer PINION_METRICS_TOKEN\n");
        }
        return options.metrics.text().then((text) => answer(200, options.metrics.contentType, text));
      }
      default:
        return options.rpc(request, response);
    }
  };
}

/**
 * The answer of `/readyz`. Only `ready` decides; the state of the bus is reported only, because a
 * bus that is down costs seconds of delay and no run.
 */
export type Readiness = {
  ready: boolean;
  checks: Record<"serving" | "database" | "bus", { ok: boolean; message: string }>;
};

async function readiness({ health, db, isBusUp }: ProbeOptions): Promise<Readiness> {
  const startedAt = performance.now();
  const hasDatabase = await answers(db);
  const tookMs = Math.round(performance.now() - startedAt);
  health.setDatabase(hasDatabase);
  const isBusGood = isBusUp();
  return {
    ready: health.isServing,
    checks: {
      serving: { ok: health.isOpen, message: health.isOpen ? "takes work" : "stopping or starting" },
      database: {
        ok: hasDatabase,
        message: hasDatabase ? `answered in ${tookMs} ms` : "the database does not answer",
      },
      bus: {
        ok: isBusGood,
        message: isBusGood ? "listens" : "notifications are missed; the sweep makes them good",
      },
    },
  };
}

async function answers(db: Db): Promise<boolean> {
  try {
    return (await within(clock.now(db), databaseWithinMs)) !== undefined;
  } catch {
    return false;
  }
}

/**
 * Keeps `grpc.health.v1` in step with the database for clients that watch. While other statements
 * are answered, the database is not asked. `answeredAgoMs`: milliseconds since its last answer.
 */
export function startHealthLook(options: {
  db: Db;
  answeredAgoMs: () => number;
  health: HealthState;
  log: Logger;
}): Loop {
  const { db, answeredAgoMs, health, log } = options;
  return startLoop({
    name: "health",
    log,
    async pass() {
      health.setDatabase(answeredAgoMs() < provenMs || (await answers(db)));
      return lookEveryMs;
    },
  });
}

function mayScrape(token: string | undefined, authorization: string | undefined): boolean {
  if (token === undefined) return true;
  const shown = /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1] ?? "";
  // Hashes have equal lengths, and comparing hashes reveals nothing of the token.
  return timingSafeEqual(secretHash(shown), secretHash(token));
}

/**
 * The numbers of the whole database, read on request and at most every 5 s. Undefined if the read
 * exceeds its time limit: `/metrics` is answered all the same.
 */
export function createNumbers(options: { db: Db; log: Logger }): () => Promise<DatabaseNumbers | undefined> {
  let readAt = Number.NEGATIVE_INFINITY;
  let numbers: Promise<DatabaseNumbers | undefined> = Promise.resolve(undefined);
  return () => {
    if (performance.now() - readAt >= numbersAgeMs) {
      readAt = performance.now();
      numbers = within(readNumbers(options.db), databaseWithinMs).catch((error) => {
        options.log.debug({ err: error }, "the numbers of the database could not be read");
        return undefined;
      });
    }
    return numbers;
  };
}
