import { describe, expect, test } from "vitest";
import { browserPath, patient, useBrowser } from "../../support/browser.ts";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { temporaryDirectory } from "../../support/processes.ts";
import { inNewOrg, useReplica } from "../../support/server.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../support/worker.ts";

describe.skipIf(!browserPath)("the fleet", () => {
  const replicaOfFile = useReplica(useDatabase({ per: "file" }), patient);
  const browser = useBrowser();

  test("devices come, work and go while the page is open", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const page = await browser.signIn(replica, "#/fleet");
    await page.getByText("No device yet").waitFor();
    const identity = await enrolDevice(replica.clients, "mac-7");
    const row = page.locator(`[data-key="${identity.deviceId}"]`);
    await row.getByText("never").waitFor();
    const device = await connect(replica.url, identity, { maxConcurrency: 2 });
    await row.getByText("online").waitFor();
    await row.getByText("0/2").waitFor();

    const { watcher } = await replica.clients.watchers.createWatcher({
      spec: { name: "Digest", prompt: "sum it up", deviceId: identity.deviceId },
    });
    await replica.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    await row.getByText("1/2").waitFor();
    await row.getByText("running").waitFor();
    await device.complete(assignment);
    await row.getByText("0/2").waitFor();
    await row.getByText("completed").waitFor();

    device.cancel();
    await row.getByText("unsteady").waitFor();
  });

  test("a fleet worker is marked as one, and is no device that a watcher can be pinned to", async () => {
    const replica = await inNewOrg(replicaOfFile());
    await enrolDevice(replica.clients, "mac-7");
    const worker = workerIdentity(await fleetToken(replica.clients));
    await connectWorker(replica.url, worker);
    const page = await browser.signIn(replica, "#/fleet");
    await page.locator(`[data-key="${worker.deviceId}"]`).getByText("fleet worker").waitFor();
    expect(await page.getByText("fleet worker").count()).toBe(1);

    await page.getByRole("link", { name: "Watchers" }).click();
    await page.getByRole("button", { name: "Create a watcher" }).click();
    const choices = page.getByRole("dialog").getByLabel("Device").getByRole("option");
    await expect.poll(() => choices.allTextContents()).toEqual(["any fleet worker", "mac-7"]);
  });

  test("a join code is made, copied, and lets a machine enrol, which the dialog says", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const page = await browser.signIn(replica, "#/fleet");
    await page.getByRole("button", { name: "Add a device" }).click();
    await page.getByLabel("Good for").selectOption("1 hour");
    await page.getByRole("button", { name: "Make a join code" }).click();
    await page.getByText("Waiting for a device to enrol…").waitFor();
    await page.getByRole("button", { name: "Copy the command", exact: true }).click();
    await page.getByText("Copied").waitFor();
    const command = String(await page.evaluate("navigator.clipboard.readText()"));
    expect(command).toMatch(new RegExp(`^pinion device enroll --url ${replica.url} --join-code \\S+$`));

    // The pasted command runs unchanged.
    const stateDir = await temporaryDirectory();
    const args = command.split(" ").slice(1);
    const ended = await runCommand({}, ...args, "--state-dir", stateDir, "--label", "pasted");
    expect(ended).toMatchObject({ code: 0 });
    await page.getByText("✓ pasted has enrolled.").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: "pasted" }).waitFor();
  });

  test("a device is asked to connect again, and deleted after a confirmation", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const identity = await enrolDevice(replica.clients, "mac-7");
    const device = await connect(replica.url, identity);
    // The list may read the device, whose session ends, when it is already deleted.
    const page = await browser.signIn(replica, "#/fleet", { expected: /status of 404/ });
    await page.getByRole("button", { name: "Disconnect mac-7" }).click();
    await device.next("drain");
    await page.getByText("mac-7 was asked to connect again.").waitFor();

    await page.getByRole("button", { name: "Delete mac-7" }).click();
    await page.getByRole("heading", { name: "Delete mac-7?" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    expect((await replica.clients.fleet.listDevices({})).devices).toHaveLength(1);
    await page.getByRole("button", { name: "Delete mac-7" }).click();
    await page.getByRole("button", { name: "Delete the device" }).click();
    await page.getByText("No device yet").waitFor();
    expect((await replica.clients.fleet.listDevices({})).devices).toHaveLength(0);
  });

  test("the filter finds by label and state; “/” leads to it, arrows through the rows, Escape out of it", async () => {
    const replica = await inNewOrg(replicaOfFile());
    for (const label of ["alpha", "beta", "gamma"]) await enrolDevice(replica.clients, label);
    const page = await browser.signIn(replica, "#/fleet");
    await page.getByRole("link", { name: "gamma" }).waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("bet");
    await page.getByRole("link", { name: "alpha" }).waitFor({ state: "detached" });
    await page.getByRole("link", { name: "beta" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: "alpha" }).waitFor();
    await page.getByRole("button", { name: /online/ }).click();
    await page.getByText("No device matches").waitFor();
    await page.getByRole("button", { name: "Show all 3" }).click();

    await page.locator('[data-index="0"]').focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    expect(await page.evaluate("document.activeElement.dataset.index")).toBe("2");
    await page.keyboard.press("Home");
    expect(await page.evaluate("document.activeElement.dataset.index")).toBe("0");
    await page.keyboard.press("Tab");
    expect(await page.evaluate("document.activeElement.textContent")).toBe("alpha");
  });
});
