/** The rpcs, with the viewer's token, and what their errors say to people. */

import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { signal } from "@preact/signals";
import { AgentService } from "#gen/pinion/v1/agent_pb.js";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { OrgService } from "#gen/pinion/v1/org_pb.js";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { TurnService } from "#gen/pinion/v1/turn_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { setClockBy } from "./clock.ts";

/** How long an answer may take. A stream has a watchdog of its own. */
const answerWithinMs = 20_000;
/**
 * Browsers open six connections to a server over HTTP/1.1. Two are for the streams, one stays free for another tab's
 * first words.
 */
const callsMax = 3;
const storageKey = "pinion.token";

/** Kept for this tab only: another tab, or this one after it was closed, asks again. */
export const token = signal(sessionStorage.getItem(storageKey) ?? "");
/** Why the viewer has to sign in again. */
export const signInError = signal("");

export function setToken(value: string): void {
  if (value) sessionStorage.setItem(storageKey, value);
  else sessionStorage.removeItem(storageKey);
  token.value = value;
}

export function signOut(because = ""): void {
  signInError.value = because;
  setToken("");
}

const waiting: (() => void)[] = [];
let calls = 0;

async function inTurn<T>(call: () => Promise<T>): Promise<T> {
  if (calls >= callsMax) await new Promise<void>((resolve) => waiting.push(resolve));
  else calls++;
  try {
    return await call();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else calls--;
  }
}

const authorize: Interceptor = (next) => async (request) => {
  const used = request.header.get("authorization") ?? `Bearer ${token.value}`;
  request.header.set("authorization", used);
  try {
    const response = await (request.stream ? next(request) : inTurn(() => next(request)));
    setClockBy(response.header.get("date"));
    return response;
  } catch (error) {
    endIfRefused(error, used);
    throw error;
  }
};

/** A token that ended ends the session, unless another one has taken its place meanwhile. */
export function endIfRefused(error: unknown, used = `Bearer ${token.value}`): void {
  const { code } = ConnectError.from(error);
  if (code === Code.Unauthenticated && token.value && used === `Bearer ${token.value}`) {
    signOut("You were signed out: the token has expired or was revoked.");
  }
}

const transport = createConnectTransport({
  // Behind a proxy the page may stand below a path, and its rpcs beside it.
  baseUrl: new URL(".", location.href).href.replace(/\/$/, ""),
  useBinaryFormat: true,
  defaultTimeoutMs: answerWithinMs,
  interceptors: [authorize],
});

export const fleet = createClient(FleetService, transport);
export const watchers = createClient(WatcherService, transport);
export const runs = createClient(RunService, transport);
export const events = createClient(EventService, transport);
export const agents = createClient(AgentService, transport);
export const turns = createClient(TurnService, transport);
const orgs = createClient(OrgService, transport);

/** The name of the org that a token belongs to; rejects if the token is not good for this page. */
export async function orgOf(candidate: string): Promise<string> {
  const headers = { authorization: `Bearer ${candidate}` };
  const { org } = await orgs.getOrg({}, { headers });
  return org?.name || org?.id || "";
}

/** The stream itself has no deadline; `signal` ends it. */
export const streaming = (signal: AbortSignal) => ({ signal, timeoutMs: 0 });

/** A call's failure in words for the viewer. */
export function explainError(error: unknown): string {
  const { code, rawMessage } = ConnectError.from(error);
  if (isUnreachable(error)) return "The server does not answer. It is tried again by itself.";
  if (code === Code.PermissionDenied) return `This token may not do that: ${rawMessage}`;
  if (code === Code.ResourceExhausted) return `Too much at once: ${rawMessage}`;
  if (code === Code.Aborted) return `Somebody else was faster: ${rawMessage}`;
  return rawMessage.charAt(0).toUpperCase() + rawMessage.slice(1);
}

export function isUnreachable(error: unknown): boolean {
  const { code, cause } = ConnectError.from(error);
  // What fetch throws when no answer came.
  return code === Code.Unavailable || code === Code.DeadlineExceeded || cause instanceof TypeError;
}

export const isForbidden = (error: unknown) => ConnectError.from(error).code === Code.PermissionDenied;
export const isNotFound = (error: unknown) => ConnectError.from(error).code === Code.NotFound;
