/** Agents, conversations, members, tokens and the search, in a real browser. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { browserPath, findBarriers, patient, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";
import { startTelegram } from "../../support/telegram.ts";

describe.skipIf(!browserPath)("the org's things", () => {
  const database = useDatabase({ per: "file" });
  const browser = useBrowser();
  let replica: TestReplica;

  beforeAll(async () => {
    replica = await openTestReplica(database.url, {
      ...patient,
      PINION_DESTINATION_NETWORKS: "127.0.0.1",
      PINION_SECRET_KEYS: `k1:${Buffer.alloc(32, 7).toString("base64")}`,
    });
  });
  afterAll(() => replica.stop());

  test("a token is made and shown once, and is revoked; a member is added and gets another role", async () => {
    const page = await browser.signIn(replica, "#/org");
    await page.getByRole("button", { name: "Create a token" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Label").fill("ci");
    await dialog.getByLabel("write").check();
    await dialog.getByRole("button", { name: "Create it" }).click();
    const secret = await dialog.getByText(/^pin_svc_/).textContent();
    await dialog.getByRole("button", { name: "Done" }).click();
    await page.getByRole("button", { name: "Revoke ci" }).waitFor();
    expect(await page.content()).not.toContain(secret);
    await page.getByRole("button", { name: "Revoke ci" }).click();
    await page.getByRole("button", { name: "Revoke it" }).click();
    await expect.poll(() => page.getByRole("button", { name: "Revoke ci" }).count()).toBe(0);

    await page.getByRole("button", { name: "Add a member" }).click();
    await dialog.getByLabel("Email").fill("bea@example.org");
    await dialog.getByLabel("Name").fill("Bea");
    await dialog.getByRole("button", { name: "Add", exact: true }).click();
    await page.getByRole("button", { name: "Change the role of Bea" }).click();
    await dialog.getByLabel("Role").selectOption("admin");
    await dialog.getByRole("button", { name: "Save" }).click();
    await expect
      .poll(async () => (await replica.clients.orgs.listMembers({})).members.map(({ role }) => role))
      .toEqual([1, 2]);
    expect(await findBarriers(page)).toEqual([]);
  });

  test("an agent is edited, and each version says what it changed", async () => {
    const { agents } = replica.clients;
    await agents.createAgent({ agentId: "scribe", name: "Scribe", settings: { identity: "You write." } });
    const page = await browser.signIn(replica, "#/agents");
    await page.getByRole("link", { name: "Scribe" }).click();
    await page.getByRole("button", { name: "Edit" }).click();
    await page.getByRole("textbox", { name: "Identity" }).fill("You write briefly.");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("button", { name: "version 2" }).click();
    await page.getByText(/added:.*You write briefly/).waitFor();
    expect((await agents.getAgent({ agentId: "scribe" })).agent!.settings!.identity).toBe(
      "You write briefly.",
    );
    expect(await findBarriers(page)).toEqual([]);
  });

  test("a conversation is a chat that goes on while it is looked at", async () => {
    const { turns, agents } = replica.clients;
    await agents.createAgent({ agentId: "talker", name: "Talker" });
    const { turn } = await turns.startTurn({
      agentId: "talker",
      userId: "ada",
      messageId: "m1",
      input: "Hello?",
    });
    const page = await browser.signIn(replica, "#/conversations");
    await page.getByRole("link", { name: turn!.conversationId }).click();
    await page.getByText("Hello?").waitFor();
    await page.getByLabel("Say something").fill("Are you there?");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByRole("list", { name: "What was said" }).getByText("Are you there?").waitFor();
    await turns.cancelTurn({ turnId: turn!.id });
    await page
      .getByText(/cancelled/i)
      .first()
      .waitFor();
    expect(await findBarriers(page)).toEqual([]);
  });

  test("one box finds watchers, devices, runs by their ids, and results by their words", async () => {
    const { watchers } = replica.clients;
    const identity = await enrolDevice(replica.clients, "lab-box");
    const device = await connect(replica.url, identity);
    const { watcher } = await watchers.createWatcher({
      spec: { name: "Weather", prompt: "Look outside.", deviceId: identity.deviceId },
    });
    await watchers.triggerWatcher({ watcherId: watcher!.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    await device.complete(assignment, "a storm over the harbour, and hail", Outcome.COMPLETED);
    const page = await browser.signIn(replica, "#/search?q=harbour%20hail");
    await page.getByText(/storm over the harbour/).waitFor();
    const box = page.getByPlaceholder("A name, an id, words of a result");
    await box.fill(assignment.workId.slice(-8));
    await page.getByRole("region", { name: "Runs" }).getByText("weather").waitFor();
    await box.fill("lab");
    await page.getByRole("region", { name: "Devices" }).getByRole("link", { name: "lab-box" }).click();
    await page.waitForURL(`**/#/fleet/${identity.deviceId}`);
  });

  test("a destination says what was given up and why, and it is sent again", async () => {
    const { destinations } = replica.clients;
    await destinations.createDestination({
      slug: "pager",
      spec: { name: "Pager", kind: { case: "webhook", value: { url: "http://127.0.0.1:9/hook" } } },
    });
    const page = await browser.signIn(replica, "#/org", { expected: /status of/ });
    await page.getByRole("link", { name: "destinations" }).click();
    await page.getByText("Pager").first().waitFor();
    await page.getByRole("button", { name: "Send pager a test" }).click();
    await page.getByText(/pager did not take it/i).waitFor();
    const messages = page.getByRole("table").last();
    await messages.getByText("destination.test").waitFor();
    await messages.getByText("given up").waitFor();
    await messages.getByRole("button", { name: "Send again" }).click();
    await page.getByText("It is tried again.").waitFor();
    expect(await findBarriers(page)).toEqual([]);
  });

  test("a platform says how it is; a start that its platform refuses says why, and it is stopped and started", async () => {
    await using telegram = await startTelegram();
    const { agents } = replica.clients;
    const upsert = (token: string) =>
      agents.upsertPlatform({
        ...{ stableId: "team-chat", agentId: "pinion-default", kind: "telegram" },
        config: { api_url: telegram.url, allow_from: "*" },
        secrets: { bot_token: { kind: { case: "value", value: token } } },
      });
    await expect(upsert("not a token")).rejects.toThrow("401");
    const page = await browser.signIn(replica, "#/org", { expected: /status of/ });
    await page.getByRole("link", { name: "platforms" }).click();
    const row = page.getByRole("row").filter({ hasText: "team-chat" });
    await row.getByText("failed").waitFor();
    await row.getByText("Telegram answers 401: Unauthorized").waitFor();
    await row.getByRole("button", { name: "Start team-chat" }).click();
    await page.getByText(/did not start: Telegram answers 401/).waitFor();
    await upsert(telegram.token);
    await row.getByText("running").waitFor();
    telegram.write("hello");
    await row.getByText("never").nth(1).waitFor({ state: "detached" });
    expect(await findBarriers(page)).toEqual([]);
    await row.getByRole("button", { name: "Stop team-chat" }).click();
    await page.getByRole("button", { name: "Stop it" }).click();
    await row.getByText("stopped").waitFor();
    await agents.deletePlatform({ stableId: "team-chat" });
  });

  test("what a result says is found by nobody who may not read it", async () => {
    const { orgs, runs } = replica.clients;
    const { secret } = await orgs.addMember({ email: "eve@example.org", role: 3, tokenScopes: ["read"] });
    const page = await browser.signIn({ url: replica.url, token: secret }, "#/search?q=harbour");
    await page.getByText("Nothing was found").waitFor();
    expect((await runs.searchRuns({ query: "harbour" })).hits).toHaveLength(1);
  });
});
