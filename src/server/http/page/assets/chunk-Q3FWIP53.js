import{Na as n}from"./chunk-XRJHG5XG.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
