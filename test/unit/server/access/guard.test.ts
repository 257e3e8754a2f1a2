import { createContextValues } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { file_pinion_v1_agent } from "#gen/pinion/v1/agent_pb.js";
import { file_pinion_v1_destination } from "#gen/pinion/v1/destination_pb.js";
import { DeviceService, file_pinion_v1_device } from "#gen/pinion/v1/device_pb.js";
import { file_pinion_v1_event } from "#gen/pinion/v1/event_pb.js";
import { file_pinion_v1_fleet } from "#gen/pinion/v1/fleet_pb.js";
import { file_pinion_v1_hook } from "#gen/pinion/v1/hook_pb.js";
import { file_pinion_v1_org } from "#gen/pinion/v1/org_pb.js";
import { file_pinion_v1_run } from "#gen/pinion/v1/run_pb.js";
import { file_pinion_v1_sign_in } from "#gen/pinion/v1/sign_in_pb.js";
import { file_pinion_v1_token } from "#gen/pinion/v1/token_pb.js";
import { file_pinion_v1_turn } from "#gen/pinion/v1/turn_pb.js";
import { file_pinion_v1_watcher } from "#gen/pinion/v1/watcher_pb.js";
import { mayEnd, mayGrant, type Principal, principalOf } from "../../../../src/server/access/principal.ts";
import { nameOf, requireRules, rules } from "../../../../src/server/access/rules.ts";

const services = [
  file_pinion_v1_agent,
  file_pinion_v1_destination,
  file_pinion_v1_device,
  file_pinion_v1_event,
  file_pinion_v1_fleet,
  file_pinion_v1_hook,
  file_pinion_v1_org,
  file_pinion_v1_run,
  file_pinion_v1_sign_in,
  file_pinion_v1_token,
  file_pinion_v1_turn,
  file_pinion_v1_watcher,
].flatMap((file) => file.services);

test("every rpc of every .proto file has a rule, and every rule of ours an rpc", () => {
  requireRules(services);
  const ours = Object.keys(rules).filter((name) => name.startsWith("pinion."));
  expect(ours.sort()).toEqual(services.flatMap((service) => service.methods.map(nameOf)).sort());
});

test("a service with an rpc that has no rule does not start, and the error names it", () => {
  const method = { ...DeviceService.methods[0]!, name: "Teleport" };
  const service = { ...DeviceService, methods: [...DeviceService.methods, method] } as never;
  expect(() => requireRules([service])).toThrow("pinion.v1.DeviceService/Teleport");
});

/** Names other orgs, so only admins of the operator's org read it. */
const readByAdmins = new Set(["ListOrgs"]);
/**
 * A caller's own sign-ins: a person who may only read ends them, and no such person confirms a
 * login.
 */
const ofOneself = new Set(["SignOut", "EndSignIn", "GetLogin", "DecideLogin"]);

test("what changes nothing needs at most read, what changes something needs more", () => {
  for (const service of services) {
    for (const method of service.methods) {
      const rule = rules[nameOf(method)]!;
      if (rule.needs !== "scope" || ofOneself.has(method.name)) continue;
      if (readByAdmins.has(method.name)) continue;
      const isRead = /^(Get|List|Watch|Explain|Preview|Search|Summarize)/.test(method.name);
      expect([method.name, rule.scope === "read"]).toEqual([method.name, isRead]);
    }
  }
});

test("only enrolling, signing in, probing and describing need no token, and each says why", () => {
  const open = Object.entries(rules).filter(([, rule]) => rule.needs === "no token");
  expect(open.map(([name]) => name).filter((name) => name.startsWith("pinion."))).toEqual([
    "pinion.v1.DeviceService/Enroll",
    "pinion.v1.SignInService/GetSignInOptions",
    "pinion.v1.SignInService/SignIn",
    "pinion.v1.SignInService/StartLogin",
    "pinion.v1.SignInService/FinishLogin",
  ]);
  for (const [, rule] of open) expect(rule.needs === "no token" && rule.because).toMatch(/\w+ \w+/);
});

test("a handler that asks for the principal of an anonymous call fails loudly", () => {
  expect(() => principalOf({ values: createContextValues() })).toThrow(/principal/);
});

test("an admin may end a device's token and make none; others do neither", () => {
  const holding = (...scopes: string[]) => ({ scopes: new Set(scopes) }) as unknown as Principal;
  const admin = holding("admin", "write", "read");
  const writer = holding("write", "read");
  expect([mayGrant(admin, "device:run"), mayEnd(admin, "device:run")]).toEqual([false, true]);
  expect([mayGrant(writer, "device:run"), mayEnd(writer, "device:run")]).toEqual([false, false]);
  for (const scope of ["fleet:run", "read", "write", "admin"]) expect(mayGrant(admin, scope)).toBe(true);
  expect([mayGrant(writer, "read"), mayGrant(writer, "fleet:run"), mayGrant(writer, "admin")]).toEqual([
    true,
    false,
    false,
  ]);
});
