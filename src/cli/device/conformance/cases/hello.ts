import { setTimeout as sleep } from "node:timers/promises";
import type { ConformanceCase } from "../case.ts";
import { expectThat } from "../verdict.ts";

/** Delay of the welcome, in ms. */
const heldBackMs = 700;

export const helloCases: ConformanceCase[] = [
  {
    name: "hello",
    promise:
      "the stream carries the token, and begins with a hello that names the installation and its agent kinds",
    async play(stage) {
      const { hello } = await stage.open();
      const { agentKind } = stage.options;
      const [token] = stage.server.tokens;
      expectThat(
        token === `Bearer ${stage.token}`,
        "the header authorization: Bearer <token of identity.json>",
        token === "" ? "no such header" : "another value",
      );
      expectThat(
        hello.installId === stage.installId,
        `hello.install_id ${stage.installId}, of identity.json`,
        JSON.stringify(hello.installId),
      );
      expectThat(
        hello.agentKinds.includes(agentKind),
        `hello.agent_kinds with "${agentKind}" (--agent-kind)`,
        JSON.stringify(hello.agentKinds),
      );
      expectThat(hello.held.length === 0, "no held attempts at the first start", `${hello.held.length}`);
    },
  },
  {
    name: "waits-for-welcome",
    promise: "nothing but the hello is sent before the welcome",
    async play(stage) {
      stage.script.welcomes = false;
      const session = await stage.open();
      await sleep(heldBackMs);
      const early = session.received.slice(1).map(({ message }) => message.case);
      expectThat(early.length === 0, "silence until the welcome", early.join(", "));
      session.welcome();
      await session.next("heartbeat", "heartbeats begin after the welcome");
    },
  },
  {
    name: "unknown-fields",
    promise: "fields and messages of a newer server are passed over",
    async play(stage) {
      stage.script.hasUnknownFields = true;
      const session = await stage.open();
      session.sendUnknown();
      const names = await stage.assign(session, "echo hello");
      session.sendUnknown();
      await session.next("complete", "the run is completed all the same", { of: names });
      expectThat(!session.isClosed, "the stream stays open", "it was closed");
    },
  },
];
