import{a as A}from"./chunk-PW2VHURY.js";import{a as L}from"./chunk-H4KXRW4X.js";import{c as U}from"./chunk-LMDDYHXK.js";import{a as k,c as f,d as H}from"./chunk-BIYUDCNG.js";import{p as d}from"./chunk-GCJZ5RRQ.js";import{a as C}from"./chunk-ZKVQ6L63.js";import{c as p}from"./chunk-G7LOHOOT.js";import{A as q,B as x,Ha as T,Na as e,a as y,k as v,l as h,m as R,n as D,p as g,r as O,s as S,t as E,u as w,va as K,x as I}from"./chunk-TVHAHW6A.js";var b=R(btoa(`
pinion/v1/hook.proto	pinion.v1"
\bHookSpec

watcher_id (	!
kind (2.pinion.v1.HookKind
filter (	
\x07mapping (	
rate_per_minute (
\vis_disabled (\b"
Hook

id (	\f
slug (	!
spec (\v2.pinion.v1.HookSpec\v
url (	
\x07version (.

created_at (\v2.google.protobuf.Timestamp.

updated_at\x07 (\v2.google.protobuf.Timestamp4
old_secret_until\b (\v2.google.protobuf.Timestamp4
last_delivery_at	 (\v2.google.protobuf.Timestamp3
last_refused_at
 (\v2.google.protobuf.Timestamp\x1B
last_refused_reason\v (	
secret_reference\f (	"¦
\fHookDelivery

id (	
\x07hook_id (	
\vdelivery_id (	/
\vreceived_at (\v2.google.protobuf.Timestamp\r
event (	'
\x07outcome (2.pinion.v1.HookOutcome
run_id\x07 (	
reason\b (	

duplicates	 (
	replay_of
 (	

body_bytes\v ($
body\f (\v2.google.protobuf.Value5
\x07headers\r (\v2$.pinion.v1.HookDelivery.HeadersEntry
\vbody_hidden (\b.
\fHeadersEntry\v
key (	\r
value (	:8"y
CreateHookRequest\f
slug (	!
spec (\v2.pinion.v1.HookSpec
secret (	

request_id (	
\x07dry_run (\b"P
CreateHookResponse
hook (\v2.pinion.v1.Hook
secret (	\v
url (	"!
GetHookRequest
\x07hook_id (	"0
GetHookResponse
hook (\v2.pinion.v1.Hook"M
ListHooksRequest
	page_size (

page_token (	

watcher_id (	"L
ListHooksResponse
hooks (\v2.pinion.v1.Hook
next_page_token (	"³
UpdateHookRequest
\x07hook_id (	!
spec (\v2.pinion.v1.HookSpec/
\vupdate_mask (\v2.google.protobuf.FieldMask
expected_version (
\x07dry_run (\b
secret (	"3
UpdateHookResponse
hook (\v2.pinion.v1.Hook"$
DeleteHookRequest
\x07hook_id (	"
DeleteHookResponse"f
RotateHookSecretRequest
\x07hook_id (	
secret (	*
\x07overlap (\v2.google.protobuf.Duration"V
RotateHookSecretResponse
hook (\v2.pinion.v1.Hook
secret (	\v
url (	",
ListHookDeliveriesRequest
\x07hook_id (	"I
ListHookDeliveriesResponse+

deliveries (\v2.pinion.v1.HookDelivery"5
GetHookDeliveryRequest
\x07hook_id (	

id (	"D
GetHookDeliveryResponse)
\bdelivery (\v2.pinion.v1.HookDelivery"L
ReplayHookDeliveryRequest
\x07hook_id (	

id (	

request_id (	"G
ReplayHookDeliveryResponse)
\bdelivery (\v2.pinion.v1.HookDelivery*®
\bHookKind
HOOK_KIND_UNSPECIFIED\0
HOOK_KIND_STANDARD
HOOK_KIND_GITHUB
HOOK_KIND_GITLAB
HOOK_KIND_SLACK
HOOK_KIND_BEARER
HOOK_KIND_SECRET_URL*Í
\vHookOutcome
HOOK_OUTCOME_UNSPECIFIED\0
HOOK_OUTCOME_STARTED
\x1BHOOK_OUTCOME_ALREADY_QUEUED
HOOK_OUTCOME_QUEUED
HOOK_OUTCOME_SKIPPED
HOOK_OUTCOME_FILTERED
HOOK_OUTCOME_FAILED2
\vHookServiceI

CreateHook.pinion.v1.CreateHookRequest.pinion.v1.CreateHookResponseE
\x07GetHook.pinion.v1.GetHookRequest.pinion.v1.GetHookResponse"K
	ListHooks\x1B.pinion.v1.ListHooksRequest.pinion.v1.ListHooksResponse"I

UpdateHook.pinion.v1.UpdateHookRequest.pinion.v1.UpdateHookResponseI

DeleteHook.pinion.v1.DeleteHookRequest.pinion.v1.DeleteHookResponse[
RotateHookSecret".pinion.v1.RotateHookSecretRequest#.pinion.v1.RotateHookSecretResponsef
ListHookDeliveries$.pinion.v1.ListHookDeliveriesRequest%.pinion.v1.ListHookDeliveriesResponse"]
GetHookDelivery!.pinion.v1.GetHookDeliveryRequest".pinion.v1.GetHookDeliveryResponse"a
ReplayHookDelivery$.pinion.v1.ReplayHookDeliveryRequest%.pinion.v1.ReplayHookDeliveryResponsebproto3`),[x,g,O,S,D]);var B=v(b,0),m=h(B),Q=v(b,1),a=h(Q),F=I(b,0);var c=T(F);var V=200,G=({kind:o})=>o.startsWith("hook.")||o==="run.created",N=o=>(m[o]??"").toLowerCase().replaceAll("_"," "),P={[a.STARTED]:["started","good"],[a.ALREADY_QUEUED]:["already there","quiet"],[a.QUEUED]:["waits","wait"],[a.SKIPPED]:["skipped","quiet"],[a.FILTERED]:["filtered","quiet"],[a.FAILED]:["failed","bad"]};function y0({id:o}){return o?e(Y,{id:o},o):e(W,{})}function W(){let o=k(u=>c.listHooks({pageSize:V},{signal:u}),[],G),n=o.value.value?.hooks;return n?n.length===0?e(C,{title:"No hook yet",children:e("p",{children:["A hook is an address where another program starts a watcher, with what it posts as the input."," ",e("code",{children:"pinion hooks create"})," makes one, or ",e("code",{children:"[hooks.…]"})," in the file of"," ",e("code",{children:"pinion apply"}),"."]})}):e("section",{class:"sheet","aria-label":"Hooks",children:[e("h1",{children:"Hooks"}),e(z,{hooks:n})]}):e(H,{error:o.error.value,again:o.again})}function z({hooks:o,isOfWatcher:n=!1}){return e(f,{label:"Hooks",items:o,keyOf:({id:u})=>u,columns:[{title:"Hook",cell:({slug:u})=>e("a",{href:p("hooks",u),children:u})},...n?[]:[{title:"Starts",cell:({spec:u})=>e("a",{href:p("watchers",u?.watcherId),children:u?.watcherId})}],{title:"Senders",cell:({spec:u})=>N(u?.kind??m.UNSPECIFIED)},{title:"Last delivery",cell:({lastDeliveryAt:u})=>u?e(d,{at:u}):e("span",{class:"muted",children:"never"})},{title:"Turned away",class:"wide-cell",cell:({lastRefusedAt:u,lastRefusedReason:s,spec:i})=>i?.isDisabled?e("span",{class:"muted",children:"disabled: senders are answered 404"}):u?e("span",{class:"bad-text",children:[e(d,{at:u}),": ",s]}):null}]})}function Y({id:o}){let n=k(async t=>{let[{hook:M},{deliveries:$}]=await Promise.all([c.getHook({hookId:o},{signal:t}),c.listHookDeliveries({hookId:o},{signal:t})]);return{hook:M,deliveries:$}},[o],G),u=q(""),s=n.value.value;if(!s)return e(H,{error:n.error.value,again:n.again});let{hook:i,deliveries:_}=s,{spec:r}=i;return e("article",{class:"page",children:[e("header",{class:"head",children:e("div",{children:[e("a",{class:"back",href:p("hooks"),children:"Hooks"}),e("h1",{children:i.slug}),e("p",{class:"muted",children:[e("code",{children:i.url})," ",e(L,{text:i.url,what:"the address"})]})]})}),e("section",{class:"sheet","aria-label":"About the hook",children:e("dl",{children:[e(l,{name:"starts",children:e("a",{href:p("watchers",r?.watcherId),children:r?.watcherId})}),e(l,{name:"senders",children:N(r?.kind??m.UNSPECIFIED)}),r?.filter&&e(l,{name:"filter",children:e("code",{children:r.filter})}),r?.mapping&&e(l,{name:"mapping",children:e("code",{children:r.mapping})}),e(l,{name:"a minute",children:r?.ratePerMinute}),r?.isDisabled&&e(l,{name:"disabled",children:"senders are answered 404"}),i.lastRefusedAt&&e(l,{name:"turned away",children:[e(d,{at:i.lastRefusedAt}),": ",i.lastRefusedReason]})]})}),e("section",{class:"sheet","aria-label":"Deliveries",children:[e("h2",{children:["Deliveries ",e("small",{children:"the newest 100 at most"})]}),_.length===0?e("p",{class:"muted",children:"None yet. Deliveries whose sender was not verified are not kept."}):e(f,{label:"Deliveries",items:_,keyOf:t=>t.id,columns:[{title:"Outcome",cell:t=>e(J,{delivery:t})},{title:"Event",cell:({event:t})=>e("code",{children:t})},{title:"Came",cell:({receivedAt:t})=>e(d,{at:t})},{title:"Run",cell:({runId:t})=>t?e("a",{href:p("runs",t),children:t.slice(-8)}):null},{title:"Again",class:"number",cell:({duplicates:t})=>t||""},{title:"Why",class:"wide-cell",cell:({reason:t})=>t},{title:"",class:"end",cell:t=>e(y,{children:[e("button",{type:"button",class:"quiet","aria-pressed":u.value===t.id,onClick:()=>{u.value=u.value===t.id?"":t.id},children:"Body"}),K("write")&&e(X,{hookId:i.id,delivery:t,done:n.again})]})}]}),u.value!==""&&e(Z,{hookId:i.id,id:u.value},u.value)]})]})}function l({name:o,children:n}){return e("div",{children:[e("dt",{children:o}),e("dd",{children:n})]})}function J({delivery:o}){let[n,u]=P[o.outcome]??["unknown","quiet"];return e("span",{class:`status ${u}`,children:[e("i",{"aria-hidden":"true"}),n,o.replayOf&&" (replay)"]})}function X({hookId:o,delivery:n,done:u}){return e("button",{type:"button",class:"quiet","aria-label":`Replay the delivery ${n.id.slice(-8)}`,onClick:()=>U(async()=>{let{delivery:s}=await c.replayHookDelivery({hookId:o,id:n.id});u();let[i]=P[s.outcome]??["unknown"];return`Taken in again: ${i}${s.reason?`, ${s.reason}`:""}.`}),children:"Replay"})}function Z({hookId:o,id:n}){let u=k(i=>c.getHookDelivery({hookId:o,id:n},{signal:i}),[n]),s=u.value.value?.delivery;return s?s.body?e(A,{value:w(E,s.body),name:"Body"}):e("p",{class:"muted",children:s.bodyHidden?"Its device’s owner has not let you read what runs are given there.":"The body is kept no longer."}):e(H,{error:u.error.value,again:u.again})}export{c as a,N as b,y0 as c,z as d};
