/**
 * The endpoint of hooks: `POST /hooks/<id>` (or `<cell>_<id>`), for senders without a token. The answer is sent after
 * the commit: the delivery's id, or the reason of a refusal. An unverified sender learns nothing
 * about the hook, and costs no row.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { createBuckets, networkOf } from "../../buckets.ts";
import { Refusal } from "../../errors.ts";
import { isUuid, withCell } from "../../ids.ts";
import { isShallow, type JsonValue } from "../../json.ts";
import type { Logger } from "../../log.ts";
import { isReference, type Keyring, type References, requireReference } from "../../secrets.ts";
import type { Db } from "../../store/pg/database.ts";
import { withinOrg } from "../../store/pg/tenancy.ts";
import * as hooks from "../../store/work/hooks.ts";
import * as orgMoves from "../../store/work/org-moves.ts";
import { take } from "../../usecases/hooks.ts";
import type { Surroundings } from "../../usecases/surroundings.ts";
import { bodyBytesMax, readBody } from "./bodies.ts";
import type { Crowd } from "./crowd.ts";
import { verify } from "./hook-verify.ts";
import type { Handler } from "./port.ts";

/** Maximum unverified deliveries from one network to one hook, as a burst and per minute. */
const refusedPerMinute = 30;
/** Maximum characters stored of headers. */
const headersCharactersMax = 4_000;

const path = /^\/hooks\/([^/?]+)(?:\/([^/?]+))?(?:\?.*)?$/;
const kept = /^(?:x-|content-type$|user-agent$|webhook-id$|webhook-timestamp$)/;
const secret = /token|secret|signature|authorization|cookie|forwarded|api-?key/;

export function withHooks(
  next: Handler,
  options: {
    /** For the lookup of the address, across orgs. */
    crossOrgDb: Db;
    db: Db;
    keyring: Keyring;
    references: References;
    surroundings: Pick<Surroundings, "doorbell" | "quotas">;
    crowd?: Pick<Crowd, "find">;
    addressOf: (headers: IncomingHttpHeaders, remoteAddress: string | undefined) => string;
    onEvents: (orgId: string) => void;
    log: Logger;
  },
): Handler {
  const { crossOrgDb, db, keyring, log } = options;
  const refusals = createBuckets({
    perMs: refusedPerMinute / 60_000,
    burst: refusedPerMinute,
    keysMax: 20_000,
    now: () => performance.now(),
  });

  function opened(hook: hooks.HookRow, stored: string): string | undefined {
    if (!isReference(stored)) return keyring.open(stored, hooks.placeOf(hook));
    return options.references.find(hook.orgId, requireReference(stored, "secret"));
  }

  async function serve(
    request: IncomingMessage | Http2ServerRequest,
    [id, urlSecret]: [string, string],
  ): Promise<Answer> {
    if (request.method !== "POST") return { status: 405, body: { error: "POST is taken here" } };
    const address = options.addressOf(request.headers, request.socket?.remoteAddress);
    const who = `${networkOf(address)} ${id}`;
    const waitMs = refusals.peek(who);
    if (waitMs > 0)
      return { status: 429, body: { error: "too many deliveries that were not verified" }, waitMs };
    const body = await readBody(request, options.crowd);
    if (!body) return { status: 413, body: { error: `a delivery has at most ${bodyBytesMax} bytes` } };
    const hook = isUuid(id) ? await hooks.findAddressed(crossOrgDb, id.toLowerCase()) : undefined;
    if (!hook) {
      const leaving = isUuid(id) ? await orgMoves.findOfHook(crossOrgDb, id.toLowerCase()) : undefined;
      if (leaving)
        return elsewhere(
          leaving,
          `/hooks/${withCell(id, leaving.cell ?? "")}${urlSecret && `/${urlSecret}`}`,
        );
      refusals.take(who);
      return { status: 404, body: { error: "there is no such hook" } };
    }
    const sealed = [hook.secret, ...(hook.oldSecret ? [hook.oldSecret] : [])];
    const secrets = sealed.flatMap((one) => opened(hook, one) ?? []);
    if (secrets.length === 0) {
      const reason = `the server has no ${hook.secret} for this org`;
      log.warn({ hookId: hook.id, reference: hook.secret }, "a hook's secret is not on this server");
      await hooks.noteRefused(crossOrgDb, { ...hook, reason });
      return { status: 503, body: { error: "try again later" }, waitMs: 5_000 };
    }
    const verified = await verify(hook.kind, secrets, { headers: request.headers, body, urlSecret });
    if ("problem" in verified) {
      refusals.take(who);
      await hooks.noteRefused(crossOrgDb, { ...hook, reason: verified.problem.slice(0, 200) });
      return { status: 401, body: { error: verified.problem } };
    }
    const parsed = parse(body, request.headers["content-type"] ?? "");
    if (parsed === undefined || !isShallow(parsed)) {
      return { status: 400, body: { error: "the body is no JSON, no form, or nested too deeply" } };
    }
    const challenge = hook.kind === "slack" ? challengeOf(parsed) : undefined;
    if (challenge !== undefined) return { status: 200, body: { challenge } };
    const incoming = {
      ...verified,
      body: parsed,
      bodyBytes: body.length,
      headers: headersOf(request.headers),
    };
    const taken = await withinOrg(hook.orgId, () => take(db, hook, incoming, options.surroundings));
    options.onEvents(hook.orgId);
    const { id: delivery, outcome, runId } = taken;
    return { status: 202, body: { delivery, outcome, ...(runId ? { run_id: runId } : {}) } };
  }

  return async (request, response) => {
    const [, named, urlSecret = ""] = path.exec(request.url ?? "") ?? [];
    if (named === undefined) return next(request, response);
    const id = withCell(named, "");
    let answer: Answer;
    try {
      answer = await serve(request, [id, urlSecret]);
    } catch (error) {
      const refusal = error instanceof Refusal ? error : undefined;
      if (!refusal)
        log.warn({ err: error }, "a delivery to a hook could not be taken in; its sender tries again");
      answer =
        refusal?.reason === "resource_exhausted"
          ? { status: 429, body: { error: refusal.message }, waitMs: refusal.retryAfterMs ?? 1_000 }
          : {
              status: refusal?.reason === "not_found" ? 404 : 503,
              body: { error: "try again later" },
              waitMs: 5_000,
            };
    }
    send(response, answer);
  };
}

/** Senders that follow redirects deliver to the new cell; others need the new address. */
function elsewhere({ cell }: orgMoves.Leaving, location: string): Answer {
  if (cell === undefined) return { status: 503, body: { error: "the org moves; try again" }, waitMs: 5_000 };
  return { status: 308, body: { error: `the hook moved to the cell ${cell}` }, location };
}

type Answer = { status: number; body: Record<string, unknown>; waitMs?: number; location?: string };

function send(
  response: ServerResponse | Http2ServerResponse,
  { status, body, waitMs, location }: Answer,
): void {
  response.statusCode = status;
  response.setHeader("content-type", "application/json");
  response.setHeader("cache-control", "no-store");
  if (location !== undefined) response.setHeader("location", location);
  if (waitMs !== undefined) response.setHeader("retry-after", String(Math.ceil(waitMs / 1_000)));
  response.end(`${JSON.stringify(body)}\n`);
}

function parse(body: Buffer, type: string): JsonValue | undefined {
  const text = body.toString("utf8");
  if (text.trim() === "") return {};
  if (/^application\/x-www-form-urlencoded/i.test(type)) {
    const form = Object.fromEntries(new URLSearchParams(text));
    // GitHub and Slack put JSON into the field `payload`.
    return form.payload === undefined ? form : parse(Buffer.from(form.payload), "application/json");
  }
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
}

function challengeOf(body: JsonValue): string | undefined {
  if (body === null || typeof body !== "object" || Array.isArray(body)) return undefined;
  return body.type === "url_verification" && typeof body.challenge === "string" ? body.challenge : undefined;
}

/** The headers that describe a delivery, without any that prove its sender. */
function headersOf(headers: IncomingHttpHeaders): Record<string, string> {
  let left = headersCharactersMax;
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]): [string, string][] => {
      if (typeof value !== "string" || !kept.test(name) || secret.test(name)) return [];
      left -= name.length + value.length;
      return left < 0 ? [] : [[name, value]];
    }),
  );
}
