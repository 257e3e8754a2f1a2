import { describe, expect, test } from "vitest";
import { HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import { browserPath, patient, untilLive, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { startTestReplica } from "../../support/server.ts";

/** The browser reports in the console that no server is at the address. */
const noServer = /ERR_CONNECTION|ERR_INTERNET|ERR_NETWORK|ERR_INCOMPLETE|ERR_EMPTY|ERR_FAILED|status of 50/;

describe.skipIf(!browserPath)("a server that goes away", () => {
  const database = useDatabase();
  const browser = useBrowser();

  test("the page says so, comes back by itself, and has missed nothing", async () => {
    const first = await startTestReplica(database.url, patient);
    const identity = await enrolDevice(first.clients, "mac-7");
    const { watcher } = await first.clients.watchers.createWatcher({
      spec: { name: "Digest", prompt: "sum it up", deviceId: identity.deviceId },
    });
    const page = await browser.signIn(first, "#/runs", { expected: noServer });
    await page.getByText("No run yet").waitFor();
    await page.evaluate("window.isSamePage = true");
    await first.stop();
    await page.getByText("reconnecting").waitFor();

    const second = await startTestReplica(database.url, {
      ...patient,
      PINION_PORT: String(first.port),
    });
    // Changes while the page is disconnected.
    const device = await connect(second.url, identity);
    const { run } = await second.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    await device.complete(assignment);

    await untilLive(page);
    await page.locator(`[data-key="${run!.id}"]`).getByText("completed").waitFor();
    await page.getByRole("link", { name: "Events" }).click();
    await page.getByText("run.completed").first().waitFor();
    await page.getByRole("link", { name: /^Fleet/ }).click();
    await page.getByText("online", { exact: true }).last().waitFor();
    expect(await page.evaluate("window.isSamePage")).toBe(true);
  });

  test("what is in no log is read again after the gap: a device that came back meanwhile is in its second session", async () => {
    const first = await startTestReplica(database.url, patient);
    const identity = await enrolDevice(first.clients, "mac-7");
    const page = await browser.signIn(first, "#/fleet", { expected: noServer });
    const row = page.locator(`[data-key="${identity.deviceId}"]`);
    await connect(first.url, identity);
    await row.getByText("#1").waitFor();
    await page.context().setOffline(true);
    await first.stop();
    await page.getByText("reconnecting").waitFor();
    const second = await startTestReplica(database.url, { ...patient, PINION_PORT: String(first.port) });
    await connect(second.url, identity);
    await page.context().setOffline(false);
    await untilLive(page);
    await row.getByText("#2").waitFor();
    await row.getByText("online").waitFor();
  });

  test("a run that is watched goes on where it was", async () => {
    const first = await startTestReplica(database.url, patient);
    const identity = await enrolDevice(first.clients, "mac-7");
    const { watcher } = await first.clients.watchers.createWatcher({
      spec: { name: "Digest", prompt: "sum it up", deviceId: identity.deviceId },
    });
    const device = await connect(first.url, identity);
    const { run } = await first.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    const page = await browser.signIn(first, `#/runs/${run!.id}`, { expected: noServer });
    await page.getByRole("heading", { name: "digest running" }).waitFor();
    await first.stop();
    await page.getByText("reconnecting").first().waitFor();

    const second = await startTestReplica(database.url, {
      ...patient,
      PINION_PORT: String(first.port),
    });
    const { workId, attemptToken } = assignment;
    const again = await connect(second.url, identity, {
      held: [{ workId, attemptToken, state: HeldAttemptState.RUNNING }],
    });
    await again.complete(assignment, "after the restart");
    await page.getByRole("heading", { name: "digest completed" }).waitFor();
    await page.getByText("after the restart").waitFor();
  });
});
