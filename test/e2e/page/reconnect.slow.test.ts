import { createClients } from "@pinion/client";
import { describe, expect, test } from "vitest";
import { HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import { browserPath, patient, untilLive, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { startPinion, temporaryDirectory } from "../../support/processes.ts";
import { ownerToken, startTestReplica } from "../../support/server.ts";

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

  test("a replica's process is killed and started again: the open page is live again, and shows what came since", {
    timeout: 90_000,
  }, async () => {
    const directory = await temporaryDirectory();
    const token = await ownerToken(database.url);
    let port = "0";
    const serve = async () => {
      const server = startPinion(["serve", "--json", "--port", port, "--data", directory], {
        DATABASE_URL: database.url,
        PINION_HEARTBEAT_TTL_MS: patient.PINION_HEARTBEAT_TTL_MS,
      });
      const { url } = JSON.parse(await server.line(/"url"/)) as { url: string };
      port = new URL(url).port;
      return { server, url: `http://127.0.0.1:${port}` };
    };
    const first = await serve();
    const clients = createClients({ url: first.url, token });
    const identity = await enrolDevice(clients, "mac-7");
    const { watcher } = await clients.watchers.createWatcher({
      spec: { name: "Digest", prompt: "sum it up", deviceId: identity.deviceId },
    });
    await connect(first.url, identity);
    const page = await browser.signIn({ url: first.url, token }, "#/fleet", { expected: noServer });
    const row = page.locator(`[data-key="${identity.deviceId}"]`);
    await row.getByText("#1").waitFor();
    await page.evaluate("window.isSamePage = true");
    await first.server.kill("SIGKILL");
    await page.getByText("reconnecting").waitFor();

    const second = await serve();
    const device = await connect(second.url, identity);
    await untilLive(page);
    await row.getByText("#2").waitFor();
    const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    await page.getByRole("link", { name: "Runs", exact: true }).click();
    const assignment = await device.next("assignment");
    device.accept(assignment);
    await page.locator(`[data-key="${run!.id}"]`).getByText("running").waitFor();
    await device.complete(assignment);
    await page.locator(`[data-key="${run!.id}"]`).getByText("completed").waitFor();
    expect(await page.evaluate("window.isSamePage")).toBe(true);
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
