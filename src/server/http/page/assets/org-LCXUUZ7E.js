import{b as F}from"./chunk-UKPFWQKL.js";import{k as A}from"./chunk-G6MVQNWY.js";import{a as d,b as _,d as k,e as x,f as g}from"./chunk-645CSAUO.js";import"./chunk-LXCYGLEC.js";import{a as S,b as D,c as w,d as C}from"./chunk-EBR46BND.js";import{a as L,e as U,p as f}from"./chunk-H6WGIXOQ.js";import"./chunk-THF4P2AO.js";import"./chunk-QFITUOKT.js";import{c as z}from"./chunk-HZI4GZ2U.js";import{A as i,B as P,Ea as R,Ha as W,Ja as y,Na as e,a as m,da as v,k as q,l as N,m as I,n as $,p as K,pa as h,va as c,wa as V,x as O}from"./chunk-XRJHG5XG.js";import"./chunk-IB3OMPMT.js";var B=I(btoa(`
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
\vRotateToken.pinion.v1.RotateTokenRequest.pinion.v1.RotateTokenResponsebproto3`),[P,K,$]);var X=q(B,0),p=N(X),G=O(B,0);var Y=2e3,E=W(G),Z={[p.PAT]:"person",[p.DEV]:"device",[p.SVC]:"service"};function H(){let n=i(!1),a=S(()=>D(Y,async t=>{let r=await E.listTokens({pageSize:500,pageToken:t});return{items:r.tokens,nextPageToken:r.nextPageToken}}),[],({kind:t})=>t.startsWith("token.")),s=a.value.value?.filter(t=>n.value||!t.revokedAt&&t.kind!==p.DEV);return e("section",{class:"sheet","aria-label":"Tokens",children:[e("h2",{children:["Tokens",e("label",{class:"small-check",children:[e("input",{type:"checkbox",checked:n.value,onChange:t=>{n.value=t.currentTarget.checked}}),"also devices’ and revoked ones"]}),c("write")&&e("button",{type:"button",class:"end",onClick:()=>d(e(ne,{done:a.again})),children:"Create a token"})]}),s?e(w,{label:"Tokens",items:s,keyOf:({id:t})=>t,columns:[{title:"Label",cell:t=>e("b",{children:t.label})},{title:"Of a",cell:t=>Z[t.kind]??""},{title:"May",cell:t=>`${t.scopes.join(", ")}${t.allDevices?", every device":""}`},{title:"Last used",cell:t=>t.lastUsedAt?e(f,{at:t.lastUsedAt}):e("span",{class:"muted",children:"never"})},{title:"Expires",cell:t=>t.revokedAt?e("span",{class:"muted",children:"revoked"}):t.expiresAt?e(f,{at:t.expiresAt}):e("span",{class:"muted",children:"never"})},{title:"",class:"end",cell:t=>c("write")&&!t.revokedAt?e(j,{token:t,done:a.again}):null}]}):e(C,{error:a.error.value,again:a.again})]})}function j({token:n,done:a}){return e(m,{children:[e("button",{type:"button",class:"quiet","aria-label":`Rotate ${n.label}`,onClick:()=>g({title:`Rotate ${n.label}?`,text:"A successor that may do the same is made and shown once; the old one stays good for ten minutes.",action:"Rotate it",async act(){let{secret:o}=await E.rotateToken({tokenId:n.id});a(),d(e(J,{secret:o,label:n.label}))}}),children:"Rotate"}),e("button",{type:"button",class:"quiet warn","aria-label":`Revoke ${n.label}`,onClick:()=>g({title:`Revoke ${n.label}?`,text:"What uses it is refused from now on, and what it holds open ends.",action:"Revoke it",async act(){return await E.revokeToken({tokenId:n.id}),a(),`${n.label} is revoked.`}}),children:"Revoke"})]})}function J({secret:n,label:a}){return e(k,{title:`The token ${a}`,children:[e("p",{children:"Copy it now: it is kept nowhere, and not shown again."}),e(F,{label:"the token",text:n}),e("footer",{children:e("button",{type:"button",class:"primary",onClick:_,children:"Done"})})]})}var ee=[{days:7,label:"7 days"},{days:30,label:"30 days"},{days:90,label:"90 days"},{days:365,label:"a year"},{days:0,label:"for ever"}];function ne({done:n}){let a=["read","write","admin","fleet:run"].filter(u=>h.value?.scopes.includes(u)||u==="fleet:run"&&c("admin")),o=i(""),s=i(p.SVC),t=i(new Set(["read"])),r=i(c("admin")?90:7),T=i("");return e(k,{title:"Create a token",class:"narrow",children:e("form",{onSubmit:async u=>{u.preventDefault();try{let{secret:b}=await E.createToken({kind:s.value,label:o.value.trim(),scopes:[...t.value],...r.value>0?{expiresIn:L(r.value*U)}:{}});n(),d(e(J,{secret:b,label:o.value.trim()}))}catch(b){T.value=y(b)}},children:[e("label",{class:"field",children:[e("span",{children:"Label"}),e("input",{required:!0,maxLength:100,value:o.value,onInput:u=>{o.value=u.currentTarget.value}})]}),e("label",{class:"field",children:[e("span",{children:"Of"}),e("select",{value:String(s.value),onChange:u=>{s.value=Number(u.currentTarget.value)},children:[e("option",{value:p.SVC,children:"a service"}),e("option",{value:p.PAT,children:"you"})]})]}),e("label",{class:"field",children:[e("span",{children:"Good for"}),e("select",{value:String(r.value),onChange:u=>{r.value=Number(u.currentTarget.value)},children:ee.map(u=>e("option",{value:u.days,children:u.label},u.days))})]}),e("fieldset",{class:"checks",children:[e("legend",{children:"It may"}),a.map(u=>e("label",{children:[e("input",{type:"checkbox",checked:t.value.has(u),onChange:b=>{let M=new Set(t.value);b.currentTarget.checked?M.add(u):M.delete(u),t.value=M}}),e("b",{children:u})]},u))]}),e(x,{action:"Create it",error:T.value,isDisabled:t.value.size===0})]})})}var te=2e3,oe=[["destinations","Destinations"],["platforms","Platforms"],["hooks","Hooks"],["secrets","Secrets"],["you","Signed-in browsers"],["events","What happened"],["orgs","All orgs"]];function Ie(){return e(m,{children:[e("h1",{class:"unseen",children:"Org"}),e("nav",{class:"org-links","aria-label":"Of the org",children:[e("b",{children:h.value?.orgName}),oe.map(([n,a])=>(n!=="orgs"||V())&&e("a",{class:"button",href:z(n),children:a},n))]}),e(ae,{}),e(H,{})]})}function ae(){let n=S(()=>D(te,async o=>{let s=await R.listMembers({pageSize:200,pageToken:o});return{items:s.members,nextPageToken:s.nextPageToken}}),[],({kind:o})=>o.startsWith("member.")),a=n.value.value;return e("section",{class:"sheet","aria-label":"Members",children:[e("h2",{children:["Members",c("admin")&&e("button",{type:"button",class:"end",onClick:()=>d(e(Q,{done:n.again})),children:"Add a member"})]}),a?e(w,{label:"Members",items:a,keyOf:({userId:o})=>o,columns:[{title:"Name",cell:o=>o.name||e("span",{class:"muted",children:"–"})},{title:"Email",cell:o=>o.email},{title:"Role",cell:o=>A(o.role)},{title:"Since",cell:o=>e(f,{at:o.createdAt})},{title:"",class:"end",cell:o=>c("admin")?e(se,{member:o,done:n.again}):null}]}):e(C,{error:n.error.value,again:n.again})]})}var ue=[v.OWNER,v.ADMIN,v.MEMBER];function se({member:n,done:a}){let o=n.name||n.email;return e(m,{children:[n.email!==""&&e("button",{type:"button",class:"quiet","aria-label":`Change the role of ${o}`,onClick:()=>d(e(Q,{member:n,done:a})),children:"Role"}),e("button",{type:"button",class:"quiet warn","aria-label":`Remove ${o}`,onClick:()=>g({title:`Remove ${o}?`,text:"Their tokens, sign-ins and devices’ tokens end, their devices’ streams are closed, and what is pinned to them is unpinned.",action:"Remove the member",async act(){let s=await R.removeMember({userId:n.userId});return a(),`${o} is removed: ${s.tokensRevoked} tokens ended, ${s.watchersUnpinned} watchers unpinned.`}}),children:"Remove"})]})}function Q({member:n,done:a}){let o=i(n?.email??""),s=i(n?.name??""),t=i(n?.role??v.MEMBER),r=i(""),T=async l=>{l.preventDefault();try{await R.addMember({email:o.value.trim(),name:s.value.trim(),role:t.value}),_(),a()}catch(u){r.value=y(u)}};return e(k,{title:n?`The role of ${n.name||n.email}`:"Add a member",class:"narrow",children:e("form",{onSubmit:T,children:[!n&&e(m,{children:[e("label",{class:"field",children:[e("span",{children:"Email"}),e("input",{type:"email",required:!0,value:o.value,onInput:l=>{o.value=l.currentTarget.value}})]}),e("label",{class:"field",children:[e("span",{children:"Name"}),e("input",{value:s.value,onInput:l=>{s.value=l.currentTarget.value}})]})]}),e("label",{class:"field",children:[e("span",{children:"Role"}),e("select",{value:String(t.value),onChange:l=>{t.value=Number(l.currentTarget.value)},children:ue.map(l=>e("option",{value:l,children:A(l)},l))})]}),e(x,{action:n?"Save":"Add",error:r.value})]})})}export{Ie as OrgView};
