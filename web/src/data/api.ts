/** The rpcs, authenticated by the browser's cookie, and the texts of their errors. */

import type { DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { signal } from "@preact/signals";
import { AgentService } from "#gen/pinion/v1/agent_pb.js";
import { DestinationService } from "#gen/pinion/v1/destination_pb.js";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { OrgService } from "#gen/pinion/v1/org_pb.js";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { type GetCallerResponse, SignInService } from "#gen/pinion/v1/sign_in_pb.js";
import { TurnService } from "#gen/pinion/v1/turn_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { backoffMs, pause } from "./backoff.ts";
import { setClockBy } from "./clock.ts";

/** Time limit of an answer in ms. A stream has a watchdog of its own. */
const answerWithinMs = 20_000;
/**
 * Maximum of parallel calls. Browsers open six connections to a server over HTTP/1.1: two for
 * streams, one free for another tab.
 */
const callsMax = 3;

/** Sign-in state; only the server knows whether the browser's cookie is valid. */
export type SignedIn = "asking" | "out" | "in";
export const signedIn = signal<SignedIn>("asking");
/** The person signed in. */
export const caller = signal<GetCallerResponse | undefined>(undefined);
/** Name of the sign-in provider; empty without a provider. */
export const oidcName = signal("");
/** Reason for a new sign-in. */
export const signInError = signal("");

/** Asks the server for the person signed in; repeated until the server answers. */
export async function askCaller(): Promise<void> {
  for (let failures = 0; ; failures++) {
    try {
      // `getSignInOptions` succeeds for signed-out browsers too: browsers log every failed call to
      // the console.
      const options = await signIns.getSignInOptions({});
      oidcName.value = options.oidcName;
      if (!options.signedIn) {
        caller.value = undefined;
        signedIn.value = "out";
        return;
      }
      caller.value = await signIns.getCaller({});
      signedIn.value = "in";
      return;
    } catch (error) {
      if (!isUnreachable(error)) {
        caller.value = undefined;
        signedIn.value = "out";
        return;
      }
      signInError.value = explainError(error);
      await pause(backoffMs(failures), new AbortController().signal);
    }
  }
}

/**
 * Signs in by a link's code or a token; rejects for an invalid credential. The browser stores the
 * cookie.
 */
export async function signIn(credential: { linkCode: string } | { token: string }): Promise<void> {
  const [name, value] = Object.entries(credential)[0]! as ["linkCode" | "token", string];
  // A front door of several cells reads no bodies: the header names the cell of the credential.
  const cell = /^(?:pin_[a-z]+_)?([a-z][a-z0-9]{0,15})_[0-9A-Za-z]{30}/.exec(value)?.[1];
  await signIns.signIn(
    { credential: { case: name, value } },
    cell ? { headers: { "pinion-cell": cell } } : {},
  );
  signInError.value = "";
  // A different person gets different data, so all views are reset.
  signedIn.value = "asking";
  await askCaller();
}

export async function signOut(): Promise<void> {
  await signIns.signOut({}).catch(() => {});
  leave("");
}

function leave(because: string): void {
  signInError.value = because;
  caller.value = undefined;
  signedIn.value = "out";
}

export const may = (scope: "write" | "admin") => caller.value?.scopes.includes(scope) ?? false;

/** The operator's org; its admins see all orgs and make new ones. */
const operatorsOrg = "local";
export const maySeeOrgs = () => caller.value?.orgId === operatorsOrg && may("admin");

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

const answer: Interceptor = (next) => async (request) => {
  try {
    const response = await (request.stream ? next(request) : inTurn(() => next(request)));
    setClockBy(response.header.get("date"));
    return response;
  } catch (error) {
    if (request.method.name !== "SignIn" && request.method.name !== "GetCaller") endIfRefused(error);
    throw error;
  }
};

/** Signs out and shows the reason, if the server reports an ended sign-in. */
export function endIfRefused(error: unknown): void {
  const { code } = ConnectError.from(error);
  if (code === Code.Unauthenticated && signedIn.value === "in") {
    leave("You were signed out: the sign-in has expired or was ended.");
  }
}

const transport = createConnectTransport({
  // Behind a proxy the page may have a path prefix, shared by the rpcs.
  baseUrl: new URL(".", location.href).href.replace(/\/$/, ""),
  useBinaryFormat: true,
  defaultTimeoutMs: answerWithinMs,
  interceptors: [answer],
});

export const fleet = createClient(FleetService, transport);
export const watchers = createClient(WatcherService, transport);
export const runs = createClient(RunService, transport);
export const events = createClient(EventService, transport);
export const agents = createClient(AgentService, transport);
export const turns = createClient(TurnService, transport);
export const orgs = createClient(OrgService, transport);
export const destinations = createClient(DestinationService, transport);
export const signIns = createClient(SignInService, transport);

/** The client of a service that only some views need: its messages are loaded with these views. */
export const clientOf = <Service extends DescService>(service: Service) => createClient(service, transport);

/** Options of a stream: no deadline; `signal` ends the stream. */
export const streaming = (signal: AbortSignal) => ({ signal, timeoutMs: 0 });

/** Describes a call's failure to the viewer. */
export function explainError(error: unknown): string {
  const { code, rawMessage } = ConnectError.from(error);
  if (isUnreachable(error)) return "The server does not answer. It is tried again by itself.";
  if (code === Code.PermissionDenied) return `You may not do that: ${rawMessage}`;
  if (code === Code.ResourceExhausted) return `Too much at once: ${rawMessage}`;
  if (code === Code.Aborted) return `Somebody else was faster: ${rawMessage}`;
  return rawMessage.charAt(0).toUpperCase() + rawMessage.slice(1);
}

export function isUnreachable(error: unknown): boolean {
  const { code, cause } = ConnectError.from(error);
  // `fetch` throws a TypeError if there is no answer.
  return code === Code.Unavailable || code === Code.DeadlineExceeded || cause instanceof TypeError;
}

export const isForbidden = (error: unknown) => ConnectError.from(error).code === Code.PermissionDenied;
export const isNotFound = (error: unknown) => ConnectError.from(error).code === Code.NotFound;
