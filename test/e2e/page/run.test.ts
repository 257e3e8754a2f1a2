/** A run on the web page, from the moment of its trigger. */
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { OutputStream, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { browserPath, patient, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../support/device.ts";
import { eventually } from "../../support/processes.ts";
import { ageRun, reapRules } from "../../support/rows.ts";
import { inNewOrg, useReplica } from "../../support/server.ts";
import { policy } from "../../support/surroundings.ts";

describe.skipIf(!browserPath)("a run on the page", () => {
  const database = useDatabase({ per: "file" });
  const replicaOfFile = useReplica(database, patient);
  const browser = useBrowser();

  async function start() {
    const replica = await inNewOrg(replicaOfFile());
    const identity = await enrolDevice(replica.clients, "mac-7");
    const device = await connect(replica.url, identity);
    const { watcher } = await replica.clients.watchers.createWatcher({
      spec: { name: "Digest", prompt: "sum it up", deviceId: identity.deviceId },
    });
    return { replica, device, watcher: watcher!, identity };
  }

  type Attempt = { workId: string; attemptToken: string };

  function write(device: DeviceStream, attempt: Attempt, sequence: number, text: string) {
    const { workId, attemptToken } = attempt;
    device.send({
      case: "output",
      value: {
        workId,
        attemptToken,
        sequence: BigInt(sequence),
        stream: OutputStream.STDOUT,
        data: new TextEncoder().encode(text),
      },
    });
  }

  const row = (page: Page, runId: string) => page.locator(`[data-key="${runId}"]`);

  test("the empty list offers the step that comes next, and the step is there", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const page = await browser.signIn(replica, "#/runs");
    await page.getByRole("link", { name: "Add a device first" }).click();
    await page.getByRole("button", { name: "Add a device" }).first().waitFor();

    // With the first device comes the org's first watcher.
    await enrolDevice(replica.clients, "mac-7");
    await page.evaluate('location.hash = "#/runs"');
    await page.getByRole("link", { name: "To the watchers, to trigger one" }).click();
    await page.getByRole("button", { name: "Trigger" }).first().waitFor();

    for (const { id } of (await replica.clients.watchers.listWatchers({})).watchers) {
      await replica.clients.watchers.deleteWatcher({ watcherId: id });
    }
    await page.evaluate('location.hash = "#/runs"');
    await page.getByRole("link", { name: "Create a watcher first" }).click();
    await page.getByRole("button", { name: "Create a watcher" }).first().waitFor();
  });

  test("a result that comes after the run was cancelled appears on the open page", async () => {
    const { replica, device, watcher } = await start();
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    const page = await browser.signIn(replica, `#/runs/${run!.id}`);
    const assignment = await device.next("assignment");
    device.accept(assignment);
    await page.getByRole("heading", { name: "digest running" }).waitFor();
    await replica.clients.runs.cancelRun({ runId: run!.id });
    // The device is silent, and its run is given up.
    const past = reapRules.ttlMs + 1;
    await ageRun(database.db, { runId: run!.id }, { cancel_requested_at: past, last_beat_at: past });
    await reapOnce(database.db, { rules: reapRules, policy });
    await page.getByRole("heading", { name: "digest cancelled" }).waitFor();
    const { verdict } = await device.complete(assignment, "finished before the cancel came");
    expect(verdict).toBe(CompletionVerdict.STORED_LATE);
    await page.getByRole("heading", { name: "digest completed" }).waitFor();
    await page.getByText("finished before the cancel came").waitFor();
  });

  test("it appears, streams and completes while the page is open", async () => {
    const { replica, device, watcher } = await start();
    const page = await browser.signIn(replica, "#/runs");
    await page.getByText("No run yet").waitFor();
    await page.evaluate("window.isSamePage = true");

    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    const assignment = await device.next("assignment");
    await row(page, run!.id).getByText("claimed").waitFor();
    device.accept(assignment);
    await row(page, run!.id).getByText("running").waitFor();

    await row(page, run!.id).getByRole("link", { name: "digest" }).click();
    await page.getByText("Nothing written yet.").waitFor();
    write(device, assignment, 1, "first line\n");
    const output = page.getByRole("log", { name: "Output of the program" });
    await output.getByText("first line").waitFor();
    write(device, assignment, 2, "second line\n");
    await output.getByText("second line").waitFor();
    expect(await output.textContent()).toBe("first line\nsecond line\n");

    expect(await device.complete(assignment, "the stored digest")).toBeDefined();
    await page.getByRole("heading", { name: "digest completed" }).waitFor();
    await output.getByText("the stored digest").waitFor();
    const steps = await page.getByRole("region", { name: "Timeline" }).locator("li b").allTextContents();
    // The device told no duration, so the end of its program is not known.
    expect(steps).toEqual(["due", "pushed", "accepted", "stored"]);
    await page.getByText(/^Completed at/).waitFor();

    await page.getByRole("link", { name: "Runs", exact: true }).first().click();
    await row(page, run!.id).getByText("completed").waitFor();
    expect(await page.evaluate("window.isSamePage")).toBe(true);
  });

  test.each([
    ["is not cut, and holds a marker that the program printed", false, undefined],
    ["is cut, and holds such a marker, too", true, "7.0 kB are missing in the middle"],
  ])("an output that %s", async (_, isOutputTruncated, missing) => {
    const { replica, device, watcher } = await start();
    const printed = "\n… [3 bytes omitted] …\n";
    const cut = isOutputTruncated ? `${"a".repeat(1_000)}\n… [7000 bytes omitted] …\n` : "";
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    const { workId, attemptToken } = await device.next("assignment");
    const output = `${printed}${cut}${"b".repeat(3_000)}the end`;
    device.send({
      case: "complete",
      value: { workId, attemptToken, outcome: Outcome.COMPLETED, output, isOutputTruncated },
    });
    await device.next("completionAck");
    const page = await browser.signIn(replica, `#/runs/${run!.id}`);
    await page.getByText(/the end$/).waitFor();
    const note = await page.getByRole("region", { name: "Output" }).locator("small").textContent();
    expect(note).toBe(missing === undefined ? "as stored" : `as stored · ${missing}`);
  });

  test("it is cancelled, and says so", async () => {
    const { replica, device, watcher } = await start();
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    const page = await browser.signIn(replica, `#/runs/${run!.id}`);
    await page.getByRole("heading", { name: "digest running" }).waitFor();

    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("button", { name: "Keep it" }).click();
    expect(device.waiting("cancel")).toEqual([]);
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("button", { name: "Cancel the run" }).click();
    const { workId, attemptToken } = await device.next("cancel");
    await page.getByRole("button", { name: "Cancelling…" }).waitFor();
    device.send({ case: "cancelled", value: { workId, attemptToken } });
    await page.getByRole("heading", { name: "digest cancelled" }).waitFor();
    await page.getByText("cancelled on the web page").first().waitFor();
  });

  test("a failed one is explained and retried; the page goes on to the new one", async () => {
    const { replica, device, watcher } = await start();
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    await device.complete(assignment, "", Outcome.FAILED, "3 of 214 tests failed");
    const page = await browser.signIn(replica, `#/runs/${run!.id}`);
    await page.getByRole("heading", { name: "digest failed" }).waitFor();
    const explanation = page.getByRole("region", { name: "Explanation" });
    await explanation.getByText(/Failed at .* 3 of 214 tests failed/).waitFor();
    await explanation.getByText(/facts, as of/).click();
    await explanation.getByText("the device accepted").waitFor();

    await page.getByRole("button", { name: "Retry" }).click();
    const again = await device.next("assignment");
    await page.waitForURL(`**/#/runs/${again.workId}`);
    await page.getByRole("link", { name: run!.id.slice(-8) }).waitFor();
    device.accept(again);
    await page.getByRole("heading", { name: "digest running" }).waitFor();
    await device.complete(again);
    await page.getByRole("heading", { name: "digest completed" }).waitFor();
  });

  test("the list shows what its filters ask for, and keeps to them as runs move on", async () => {
    const { replica, device, watcher } = await start();
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    const page = await browser.signIn(replica, "#/runs?state=running");
    await row(page, run!.id).waitFor();
    await device.complete(assignment);
    await row(page, run!.id).waitFor({ state: "detached" });
    await page.getByText("No run matches").waitFor();
    await page.getByRole("button", { name: "Show all runs" }).click();
    await row(page, run!.id).getByText("completed").waitFor();
    await page.getByLabel("Device").selectOption({ label: "mac-7" });
    await row(page, run!.id).waitFor();
    await page.getByRole("button", { name: "failed" }).click();
    await page.getByText("No run matches").waitFor();
  });

  test("a run that waits says for what", async () => {
    const { replica, device, watcher } = await start();
    device.cancel();
    await eventually(
      async () =>
        (await replica.clients.fleet.listDevices({})).devices.every(({ disconnectedAt }) => disconnectedAt),
      "the end of the stream",
    );
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    expect(run!.status).toBe(RunStatus.PENDING);
    const page = await browser.signIn(replica, `#/runs/${run!.id}`);
    await page.getByText(/device mac-7 offline since/).waitFor();
    await page.getByText(/It is pushed as soon as mac-7 connects/).waitFor();
  });

  test("a link to a run that does not exist says so", async () => {
    const { replica } = await start();
    const page = await browser.signIn(replica, "#/runs/01a1fe0a-0000-7000-8000-000000000000", {
      expected: /404/,
    });
    await page.getByText("This run cannot be shown").waitFor();
  });
});
