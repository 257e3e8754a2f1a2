# Makes this machine a device of a Pinion: fetches the daemon from the server, checks it, and enrols.
#   & ([scriptblock]::Create((irm {{server}}/install.ps1))) JOIN_CODE [-Label NAME]
param([string]$JoinCode = "", [string]$Label = "", [string]$BinDir = "$env:LOCALAPPDATA\Pinion")
$ErrorActionPreference = "Stop"
$server = '{{server}}'

function Fail([string]$Message, [string[]]$Advice) {
  [Console]::Error.WriteLine("error: $Message")
  foreach ($line in $Advice) { [Console]::Error.WriteLine("  -> $line") }
  exit 1
}

if (-not $JoinCode) { Fail "a join code is missing" @("make one with 'pinion devices join-code', or on the page") }
$arch = if ($env:PROCESSOR_ARCHITECTURE -eq "ARM64") { "arm64" } else { "x64" }
$system = "win32-$arch"
$list = (Invoke-WebRequest -UseBasicParsing "$server/downloads/manifest.txt").Content -split "`n" |
  Where-Object { $_ } | ForEach-Object { , ($_.Trim() -split " ") }
$entry = $list | Where-Object { $_[1] -eq "piniond" -and $_[2] -eq $system } | Select-Object -First 1
if (-not $entry) { $entry = $list | Where-Object { $_[1] -eq "pinion" -and $_[2] -eq $system } | Select-Object -First 1 }
if (-not $entry) {
  $package = $list | Where-Object { $_[1] -eq "npm" } | Select-Object -First 1
  if ($package) {
    Fail "$server has no program for $system" @(
      "with Node 24 and npm: npm install -g $server/downloads/$($package[3])",
      "then: pinion device enroll --url $server --join-code $JoinCode")
  }
  Fail "$server has no program for $system" @("its operator makes one, and names its folder with PINION_DOWNLOADS")
}
New-Item -ItemType Directory -Force $BinDir | Out-Null
$download = Join-Path $BinDir ".download"
Invoke-WebRequest -UseBasicParsing "$server/downloads/$($entry[3])" -OutFile $download
$found = (Get-FileHash -Algorithm SHA256 $download).Hash.ToLower()
if ($found -ne $entry[0]) {
  Remove-Item $download
  Fail "what came is not what the server lists: SHA-256 $found instead of $($entry[0])" @("try again")
}
$program = Join-Path $BinDir "$($entry[1]).exe"
if ($entry[3].EndsWith(".gz")) {
  $in = New-Object IO.Compression.GZipStream([IO.File]::OpenRead($download), [IO.Compression.CompressionMode]::Decompress)
  $out = [IO.File]::Create($program)
  $in.CopyTo($out); $out.Close(); $in.Close()
  Remove-Item $download
} else { Move-Item -Force $download $program }
$arguments = @("device", "enroll", "--url", $server, "--join-code", $JoinCode)
if ($Label) { $arguments += @("--label", $Label) }
& $program @arguments
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
Write-Output "start it:"
Write-Output "  $program device run"
