#!/usr/bin/env node
// The syntax is old on purpose: an old Node reads this file too, and has to be able to say that it is too old.
"use strict";
var childProcess = require("child_process");
var fs = require("fs");
var path = require("path");

var oldest = 24;
// In the package of npm the built command, in a checkout the sources.
var built = path.join(__dirname, "..", "dist", "pinion", "main.js");
var source = path.join(__dirname, "..", "src", "cli", "main.ts");
var main = fs.existsSync(source) ? source : built;

function isNewEnough() {
  return Number(process.versions.node.split(".")[0]) >= oldest;
}

// The Node that npm brings beside the command, on Linux.
function broughtNode() {
  try {
    return require.resolve("node-" + process.platform + "-" + process.arch + "/bin/node");
  } catch (error) {
    return undefined;
  }
}

function refuse() {
  process.stderr.write(
    "error: pinion needs Node " + oldest + " or newer, and this is Node " + process.versions.node + "\n" +
      "  -> install a newer Node, or let npm bring one: on Linux it does, unless optional packages are omitted;\n" +
      "     the one-file program that a Pinion server gives (install.sh) needs no Node\n"
  );
  process.exit(1);
}

function startWith(node) {
  var child = childProcess.spawn(node, [main].concat(process.argv.slice(2)), { stdio: "inherit" });
  ["SIGINT", "SIGTERM", "SIGHUP"].forEach(function (signal) {
    process.on(signal, function () {
      // At a terminal Ctrl-C reaches the whole group, and a second one would mean "at once".
      if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
    });
  });
  child.on("error", function (error) {
    process.stderr.write("error: " + node + " cannot be started: " + error.message + "\n");
    process.exit(1);
  });
  child.on("exit", function (code, signal) {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

if (isNewEnough()) require("./start.cjs")(main);
else if (broughtNode()) startWith(broughtNode());
else refuse();
