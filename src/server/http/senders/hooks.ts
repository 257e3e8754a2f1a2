/**
 * The endpoint of hooks: `POST /hooks/<id>` (or `<cell>_<id>`), for senders without a token. The
 * answer is sent after the commit: the delivery's id, or the reason of a refusal. An unverified
 * sender learns nothing about the hook, and costs no row.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { Refusal } from "../../../errors.ts";
import { isReference, type Keyring, type References, requireReference } from "../../../secrets.ts";
import type { Db } from "../../../store/pg/database.ts";
import { withinOrg } from "../../../store/pg/tenancy.ts";
import type { Leaving } from "../../../store/work/service/org-moves.ts";
import * as hooks from "../../../store/work/watchers/hooks.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { take } from "../../../usecases/hook-deliveries.ts";
import type { Surroundings } from "../../../usecases/surroundings.ts";
import { isUuid, withCell } from "../../../values/ids.ts";
import { isShallow, type JsonValue, parseJson } from "../../../values/json.ts";
import type { Handler } from "../port/requests.ts";
import { createHookLanes, type HookLanes } from "./hook-lanes.ts";
import { createHookLookups, type HookLookups } from "./hook-lookups.ts";
import { verify } from "./hook-verify.ts";
import {
  createSenders,
  failedProblem,
  type Problem,
  retryAfterOf,
  type SenderOptions,
  type Senders,
  type Sent,
} from "./senders.ts";

/** Maximum unverified deliveries from one network to one hook, as a burst and per minute. */
const refusedPerMinute = 30;
/** Maximum characters stored of headers. */
const headersCharactersMax = 4_000;

const path = /^\/hooks\/([^/?]+)(?:\/([^/?]+))?(?:\?.*)?$/;
const kept = /^(?:x-|content-type$|user-agent$|webhook-id$|webhook-timestamp$)/;
const secret = /token|secret|signature|authorization|cookie|forwarded|api-?key/;

type HookOptions = SenderOptions & {
  /** For the lookup of the address, across orgs. */
  crossOrgDb: Db;
  db: Db;
  keyring: Keyring;
  references: References;
  surroundings: Pick<Surroundings, "doorbell" | "quotas" | "hold">;
  onEvents: (orgId: string) => void;
  log: Logger;
};

type Asked = { request: IncomingMessage | Http2ServerRequest; id: string; urlSecret: string };
type Served = HookOptions & { senders: Senders; lanes: HookLanes; lookups: HookLookups };

export function withHooks(next: Handler, options: HookOptions): Handler {
  const senders = createSenders(options, {
    refusedPerMinute,
    noun: { one: "a delivery", many: "deliveries" },
  });
  const lookups = createHookLookups(options.crossOrgDb);
  const served: Served = { ...options, senders, lanes: createHookLanes(), lookups };
  return async (request, response) => {
    const [, named, urlSecret = ""] = path.exec(request.url ?? "") ?? [];
    if (named === undefined) return next(request, response);
    const id = withCell(named, "");
    const answer = await answerOf(served, { request, id, urlSecret }).catch((error: unknown) => {
      if (!(error instanceof Refusal))
        options.log.warn(
          { err: error },
          "a delivery to a hook could not be taken in; its sender tries again",
        );
      const failed = answerWith(failedProblem(error));
      return error instanceof Refusal && error.reason === "not_found" ? { ...failed, status: 404 } : failed;
    });
    send(response, answer);
  };
}

async function answerOf(options: Served, asked: Asked): Promise<Answer> {
  const { request, id } = asked;
  if (request.method !== "POST") return answerWith({ status: 405, error: "POST is taken here" });
  const sent = await options.senders.admit(request, id);
  if ("error" in sent) return answerWith(sent);
  const { hook, leaving } = isUuid(id) ? await options.lookups.find(id.toLowerCase()) : {};
  if (hook) return await deliver(options, hook, { ...asked, sent });
  if (leaving) return elsewhere(leaving, asked);
  sent.noteUnverified();
  return answerWith({ status: 404, error: "there is no such hook" });
}

/** Verifies a delivery and takes the delivery in. */
async function deliver(
  options: Served,
  hook: hooks.HookRow,
  { request, urlSecret, sent: { body, noteUnverified } }: Asked & { sent: Sent },
): Promise<Answer> {
  const { crossOrgDb, db, lanes, log, surroundings } = options;
  const secrets = secretsOf(options, hook);
  if (secrets.length === 0) {
    const reason = `the server has no ${hook.secret} for this org`;
    log.warn({ hookId: hook.id, reference: hook.secret }, "a hook's secret is not on this server");
    await hooks.noteRefused(crossOrgDb, { ...hook, reason });
    return answerWith({ status: 503, error: "try again later", waitMs: 5_000 });
  }
  const { headers } = request;
  const verified = await verify(hook.kind, secrets, { headers, body, urlSecret });
  if ("problem" in verified) {
    noteUnverified();
    await hooks.noteRefused(crossOrgDb, { ...hook, reason: verified.problem.slice(0, 200) });
    return answerWith({ status: 401, error: verified.problem });
  }
  const parsed = parse(body, headers["content-type"] ?? "");
  if (parsed === undefined || !isShallow(parsed)) {
    return answerWith({ status: 400, error: "the body is no JSON, no form, or nested too deeply" });
  }
  const challenge = hook.kind === "slack" ? challengeOf(parsed) : undefined;
  if (challenge !== undefined) return { status: 200, body: { challenge } };
  const incoming = { ...verified, body: parsed, bodyBytes: body.length, headers: headersOf(headers) };
  const taken = await lanes.within(hook.id, () =>
    withinOrg(hook.orgId, () => take(db, hook, incoming, surroundings)),
  );
  options.onEvents(hook.orgId);
  const { id: delivery, outcome, runId } = taken;
  return { status: 202, body: { delivery, outcome, ...(runId ? { run_id: runId } : {}) } };
}

/** The readable secrets of a hook: the current secret, and the old secret while both are taken. */
function secretsOf({ keyring, references }: HookOptions, hook: hooks.HookRow): string[] {
  const stored = [hook.secret, ...(hook.oldSecret ? [hook.oldSecret] : [])];
  return stored.flatMap((one) => {
    const opened = isReference(one)
      ? references.find(hook.orgId, requireReference(one, "secret"))
      : keyring.open(one, hooks.placeOf(hook));
    return opened ?? [];
  });
}

/** Senders that follow redirects deliver to the new cell; others need the new address. */
function elsewhere({ cell }: Leaving, { id, urlSecret }: Asked): Answer {
  if (cell === undefined)
    return answerWith({ status: 503, error: "the org moves; try again", waitMs: 5_000 });
  const location = `/hooks/${withCell(id, cell)}${urlSecret && `/${urlSecret}`}`;
  return { status: 308, body: { error: `the hook moved to the cell ${cell}` }, location };
}

type Answer = { status: number; body: Record<string, unknown>; waitMs?: number; location?: string };

const answerWith = ({ error, ...problem }: Problem): Answer => ({ ...problem, body: { error } });

function send(
  response: ServerResponse | Http2ServerResponse,
  { status, body, waitMs, location }: Answer,
): void {
  response.statusCode = status;
  response.setHeader("content-type", "application/json");
  response.setHeader("cache-control", "no-store");
  if (location !== undefined) response.setHeader("location", location);
  if (waitMs !== undefined) response.setHeader("retry-after", retryAfterOf(waitMs));
  response.end(`${JSON.stringify(body)}\n`);
}

function parse(body: Buffer, type: string): JsonValue | undefined {
  // Some senders begin with a byte order mark, which JSON does not know.
  const text = body.toString("utf8").replace(/^\ufeff/, "");
  if (text.trim() === "") return {};
  if (/^application\/x-www-form-urlencoded/i.test(type)) {
    const form = Object.fromEntries(new URLSearchParams(text));
    // GitHub and Slack put JSON into the field `payload`.
    return form.payload === undefined ? form : parse(Buffer.from(form.payload), "application/json");
  }
  try {
    return parseJson(text);
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
