import{a as q}from"./chunk-4RR2SE4R.js";import{a as b,c as v,d as G}from"./chunk-N6TBQMCJ.js";import"./chunk-5JLG5N7T.js";import{k as M}from"./chunk-ZYHFSHBT.js";import{a as m,b as z,d as h,e as _,f as k}from"./chunk-34LZC4KC.js";import"./chunk-K5B6FKPC.js";import{a as x,b as S,c as D,d as w}from"./chunk-FVRG3YFL.js";import{a as I,e as B,p as y}from"./chunk-P6FPAYFH.js";import"./chunk-JATSQIO4.js";import"./chunk-TIXP2YEY.js";import{c as U}from"./chunk-FNIAJ5M6.js";import{A as s,B as V,Ea as g,Ha as W,Ja as R,Na as e,a as d,da as p,k as $,l as N,m as O,n as K,p as L,pa as T,va as l,wa as F,x as P}from"./chunk-Z5JTJ2A6.js";import"./chunk-IB3OMPMT.js";var H=O(btoa(`
pinion/v1/token.proto	pinion.v1"û
Token

id (	"
kind (2.pinion.v1.TokenKind\r
label (	
scopes (	
\x07user_id (	
	device_id (	.

created_at\x07 (\v2.google.protobuf.Timestamp.

expires_at\b (\v2.google.protobuf.Timestamp0
\flast_used_at	 (\v2.google.protobuf.Timestamp.

revoked_at
 (\v2.google.protobuf.Timestamp

creator_id\v (	
\fcreator_left\f (\b
\vall_devices\r (\b"Ã
CreateTokenRequest"
kind (2.pinion.v1.TokenKind\r
label (	
scopes (	-

expires_in (\v2.google.protobuf.Duration

request_id (	

device_ids (	
\vall_devices\x07 (\b"F
CreateTokenResponse
token (\v2.pinion.v1.Token
secret (	":
ListTokensRequest
	page_size (

page_token (	"q
ListTokensResponse 
tokens (\v2.pinion.v1.Token
next_page_token (	 
caller (\v2.pinion.v1.Token"&
RevokeTokenRequest
\btoken_id (	"6
RevokeTokenResponse
token (\v2.pinion.v1.Token"
RotateTokenRequest
\btoken_id (	*
\x07overlap (\v2.google.protobuf.Duration-

expires_in (\v2.google.protobuf.Duration"m
RotateTokenResponse
token (\v2.pinion.v1.Token
secret (	%
\vpredecessor (\v2.pinion.v1.Token*c
	TokenKind
TOKEN_KIND_UNSPECIFIED\0
TOKEN_KIND_PAT
TOKEN_KIND_DEV
TOKEN_KIND_SVC2È
\fTokenServiceL
\vCreateToken.pinion.v1.CreateTokenRequest.pinion.v1.CreateTokenResponseN

ListTokens.pinion.v1.ListTokensRequest.pinion.v1.ListTokensResponse"L
\vRevokeToken.pinion.v1.RevokeTokenRequest.pinion.v1.RevokeTokenResponseL
\vRotateToken.pinion.v1.RotateTokenRequest.pinion.v1.RotateTokenResponsebproto3`),[V,L,K]);var Z=$(H,0),c=N(Z),J=P(H,0);var j=2e3,C=W(J),ee={[c.PAT]:"person",[c.DEV]:"device",[c.SVC]:"service"};function X(){let o=s(!1),n=x(()=>S(j,async u=>{let i=await C.listTokens({pageSize:500,pageToken:u});return{items:i.tokens,nextPageToken:i.nextPageToken}}),[],({kind:u})=>u.startsWith("token.")),a=n.value.value?.filter(u=>o.value||!u.revokedAt&&u.kind!==c.DEV);return e("section",{class:"sheet","aria-label":"Tokens",children:[e("h2",{children:["Tokens",e("label",{class:"small-check",children:[e("input",{type:"checkbox",checked:o.value,onChange:u=>{o.value=u.currentTarget.checked}}),"also devices’ and revoked ones"]}),l("write")&&e("button",{type:"button",class:"end",onClick:()=>m(e(ae,{done:n.again})),children:"Create a token"})]}),a?e(D,{label:"Tokens",items:a,keyOf:({id:u})=>u,columns:oe(n.again)}):e(w,{error:n.error.value,again:n.again})]})}var oe=o=>[{title:"Label",cell:n=>e("b",{children:n.label})},{title:"Of a",cell:n=>ee[n.kind]??""},{title:"May",cell:n=>`${n.scopes.join(", ")}${n.allDevices?", every device":""}`},{title:"Last used",cell:n=>e(Q,{at:n.lastUsedAt})},{title:"Expires",cell:n=>n.revokedAt?e("span",{class:"muted",children:"revoked"}):e(Q,{at:n.expiresAt})},{title:"",class:"end",cell:n=>l("write")&&!n.revokedAt?e(ne,{token:n,done:o}):null}];function Q({at:o}){return o?e(y,{at:o}):e("span",{class:"muted",children:"never"})}function ne({token:o,done:n}){return e(d,{children:[e("button",{type:"button",class:"quiet","aria-label":`Rotate ${o.label}`,onClick:()=>k({title:`Rotate ${o.label}?`,text:"A successor that may do the same is made and shown once; the old one stays good for ten minutes.",action:"Rotate it",async act(){let{secret:t}=await C.rotateToken({tokenId:o.id});n(),m(e(q,{title:`The token ${o.label}`,secret:t}))}}),children:"Rotate"}),e("button",{type:"button",class:"quiet warn","aria-label":`Revoke ${o.label}`,onClick:()=>k({title:`Revoke ${o.label}?`,text:"What uses it is refused from now on, and what it holds open ends.",action:"Revoke it",async act(){return await C.revokeToken({tokenId:o.id}),n(),`${o.label} is revoked.`}}),children:"Revoke"})]})}var te=[{value:7,label:"7 days"},{value:30,label:"30 days"},{value:90,label:"90 days"},{value:365,label:"a year"},{value:0,label:"for ever"}],ue=[{value:c.SVC,label:"a service"},{value:c.PAT,label:"you"}];function ae({done:o}){let n=["read","write","admin","fleet:run"].filter(r=>T.value?.scopes.includes(r)||r==="fleet:run"&&l("admin")).map(r=>({value:r,label:r})),t=s(""),a=s(c.SVC),u=s(new Set(["read"])),i=s(l("admin")?90:7),f=s("");return e(h,{title:"Create a token",class:"narrow",children:e("form",{onSubmit:async r=>{r.preventDefault();try{let{secret:E}=await C.createToken({kind:a.value,label:t.value.trim(),scopes:[...u.value],...i.value>0?{expiresIn:I(i.value*B)}:{}});o(),m(e(q,{title:`The token ${t.value.trim()}`,secret:E}))}catch(E){f.value=R(E)}},children:[e(b,{label:"Label",value:t,required:!0,maxLength:100}),e(v,{label:"Of",value:a,options:ue}),e(v,{label:"Good for",value:i,options:te}),e(G,{legend:"It may",chosen:u,options:n}),e(_,{action:"Create it",error:f.value,isDisabled:u.value.size===0})]})})}var se=2e3,ie=[["destinations","Destinations"],["platforms","Platforms"],["hooks","Hooks"],["secrets","Secrets"],["you","Signed-in browsers"],["events","What happened"],["orgs","All orgs"]];function Ve(){return e(d,{children:[e("h1",{class:"unseen",children:"Org"}),e("nav",{class:"org-links","aria-label":"Of the org",children:[e("b",{children:T.value?.orgName}),ie.map(([o,n])=>(o!=="orgs"||F())&&e("a",{class:"button",href:U(o),children:n},o))]}),e(re,{}),e(X,{})]})}function re(){let o=x(()=>S(se,async t=>{let a=await g.listMembers({pageSize:200,pageToken:t});return{items:a.members,nextPageToken:a.nextPageToken}}),[],({kind:t})=>t.startsWith("member.")),n=o.value.value;return e("section",{class:"sheet","aria-label":"Members",children:[e("h2",{children:["Members",l("admin")&&e("button",{type:"button",class:"end",onClick:()=>m(e(Y,{done:o.again})),children:"Add a member"})]}),n?e(D,{label:"Members",items:n,keyOf:({userId:t})=>t,columns:[{title:"Name",cell:t=>t.name||e("span",{class:"muted",children:"–"})},{title:"Email",cell:t=>t.email},{title:"Role",cell:t=>M(t.role)},{title:"Since",cell:t=>e(y,{at:t.createdAt})},{title:"",class:"end",cell:t=>l("admin")?e(ce,{member:t,done:o.again}):null}]}):e(w,{error:o.error.value,again:o.again})]})}var le=[p.OWNER,p.ADMIN,p.MEMBER].map(o=>({value:o,label:M(o)}));function ce({member:o,done:n}){let t=o.name||o.email;return e(d,{children:[o.email!==""&&e("button",{type:"button",class:"quiet","aria-label":`Change the role of ${t}`,onClick:()=>m(e(Y,{member:o,done:n})),children:"Role"}),e("button",{type:"button",class:"quiet warn","aria-label":`Remove ${t}`,onClick:()=>k({title:`Remove ${t}?`,text:"Their tokens, sign-ins and devices’ tokens end, their devices’ streams are closed, and what is pinned to them is unpinned.",action:"Remove the member",async act(){let a=await g.removeMember({userId:o.userId});return n(),`${t} is removed: ${a.tokensRevoked} tokens ended, ${a.watchersUnpinned} watchers unpinned.`}}),children:"Remove"})]})}function Y({member:o,done:n}){let t=s(o?.email??""),a=s(o?.name??""),u=s(o?.role??p.MEMBER),i=s(""),f=async A=>{A.preventDefault();try{await g.addMember({email:t.value.trim(),name:a.value.trim(),role:u.value}),z(),n()}catch(r){i.value=R(r)}};return e(h,{title:o?`The role of ${o.name||o.email}`:"Add a member",class:"narrow",children:e("form",{onSubmit:f,children:[!o&&e(d,{children:[e(b,{label:"Email",value:t,isEmail:!0,required:!0}),e(b,{label:"Name",value:a})]}),e(v,{label:"Role",value:u,options:le}),e(_,{action:o?"Save":"Add",error:i.value})]})})}export{Ve as OrgView};
